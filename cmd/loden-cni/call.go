package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
)

// call is a single run of the plugin: the runtime's environment variables and standard input,
// checked.
//
// The CNI library's package skel does the same work, but it reads the configuration three
// times and links regular expressions and every version of a result: together 0.3 ms of an
// ADD (November 2026). A test compares both.
type call struct {
	Command     string
	ContainerID string
	NetNS       string // path; "" when the namespace is gone
	IfName      string
	Path        string // directories of plugins
	Conf        netConf
}

// versions lists the CNI versions the plugin speaks, oldest first. Results of 0.2.0 and
// older have a single address per family and no interfaces, so the list starts at 0.3.1.
func versions() []string { return []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} }

// printVersions answers VERSION, in the version of the specification that the answer's
// form is of.
func printVersions(w io.Writer) error {
	return json.NewEncoder(w).Encode(struct {
		CNIVersion string   `json:"cniVersion"`
		Supported  []string `json:"supportedVersions"`
	}{"1.1.0", versions()})
}

// since returns the first CNI version with a command, and "" for an unknown command.
func since(command string) string {
	switch command {
	case "ADD", "DEL":
		return "0.3.1"
	case "CHECK":
		return "0.4.0"
	case "GC", "STATUS":
		return "1.1.0"
	}
	return ""
}

// parseCall reads a call of any command but VERSION. Its errors have the codes of the CNI
// specification. The delegate, which enters the container's namespace, checks that it is not
// the plugin's own namespace.
func parseCall(getenv func(string) string, stdin io.Reader) (call, error) {
	c := call{
		Command: getenv("CNI_COMMAND"), ContainerID: getenv("CNI_CONTAINERID"), NetNS: getenv("CNI_NETNS"),
		IfName: getenv("CNI_IFNAME"), Path: getenv("CNI_PATH"),
	}
	if since(c.Command) == "" {
		return call{}, types.NewError(types.ErrInvalidEnvironmentVariables, "unknown CNI_COMMAND: "+c.Command, "")
	}
	if err := c.checkEnvironment(); err != nil {
		return call{}, err
	}
	data, err := io.ReadAll(stdin)
	if err != nil {
		return call{}, types.NewError(types.ErrIOFailure, fmt.Sprintf("read standard input: %v", err), "")
	}
	if c.Conf, err = parseConf(data); err != nil {
		return call{}, err
	}
	return c, c.checkVersion()
}

// checkEnvironment returns an error that names the missing or wrong variable.
func (c call) checkEnvironment() error {
	perContainer := c.Command == "ADD" || c.Command == "DEL" || c.Command == "CHECK"
	var missing []string
	for _, v := range []struct {
		name, value string
		needed      bool
	}{
		{"CNI_CONTAINERID", c.ContainerID, perContainer},
		{"CNI_NETNS", c.NetNS, perContainer && c.Command != "DEL"},
		{"CNI_IFNAME", c.IfName, perContainer},
		{"CNI_PATH", c.Path, true},
	} {
		if v.needed && v.value == "" {
			missing = append(missing, v.name)
		}
	}
	reason := ""
	switch {
	case len(missing) > 0:
		reason = fmt.Sprintf("required env variables [%s] missing", strings.Join(missing, ","))
	case perContainer && !isName(c.ContainerID):
		reason = "invalid characters in containerID"
	case perContainer && !isInterface(c.IfName):
		reason = fmt.Sprintf("CNI_IFNAME is %q, which Linux does not accept as the name of an interface", c.IfName)
	default:
		return nil
	}
	return types.NewError(types.ErrInvalidEnvironmentVariables, reason, "")
}

// checkVersion returns an error when the plugin does not know the configuration's version, or the
// version does not have the command.
func (c call) checkVersion() error {
	v := c.Conf.CNIVersion
	first, have := slices.Index(versions(), since(c.Command)), slices.Index(versions(), v)
	switch {
	case have < 0:
		return types.NewError(types.ErrIncompatibleCNIVersion, "incompatible CNI versions", fmt.Sprintf("config is %q, plugin supports %q", v, versions()))
	case have < first:
		return types.NewError(types.ErrIncompatibleCNIVersion, "config version does not allow "+c.Command, "")
	}
	return nil
}

// isName reports whether s may name a container or a network: it becomes a part of paths.
func isName(s string) bool {
	for i, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return s != ""
}

// isInterface reports whether Linux takes s as the name of an interface (dev_valid_name).
func isInterface(s string) bool {
	bad := func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) }
	return s != "" && len(s) <= 15 && s != "." && s != ".." && !strings.ContainsFunc(s, bad)
}
