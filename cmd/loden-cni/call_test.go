package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"pgregory.net/rapid"
)

// skelEnv makes the test's binary a plugin that the CNI library serves and that does no work:
// parseCall has to agree with it.
const skelEnv = "LODEN_TEST_SKEL"

// TestCallsAreAcceptedAsTheCNILibraryDoes starts the library's plugin with calls that are
// wrong in a single way each.
func TestCallsAreAcceptedAsTheCNILibraryDoes(t *testing.T) {
	if os.Getenv(skelEnv) != "" {
		nothing := func(*skel.CmdArgs) error { return nil }
		skel.PluginMainFuncs(skel.CNIFuncs{Add: nothing, Del: nothing, Check: nothing, GC: nothing, Status: nothing},
			version.PluginSupports(versions()...), "")
		os.Exit(0)
	}
	good := map[string]string{
		"CNI_COMMAND": "", "CNI_CONTAINERID": "a-1_b.C", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
		"CNI_NETNS": "/proc/1/ns/net", "CNI_NETNS_OVERRIDE": "1",
	}
	const conf = `{"cniVersion":"1.1.0","name":"n"}`
	for _, command := range []string{"ADD", "DEL", "CHECK", "GC", "STATUS", "UPDATE"} {
		for _, wrong := range []string{
			"", "CNI_CONTAINERID=", "CNI_CONTAINERID=../x", "CNI_CONTAINERID=-a", "CNI_CONTAINERID=a@b", "CNI_CONTAINERID=ä", "CNI_NETNS=", "CNI_PATH=",
			"CNI_IFNAME=", "CNI_IFNAME=..", "CNI_IFNAME=a/b", "CNI_IFNAME=a b", "CNI_IFNAME=abcdefghijklmnop", "CNI_IFNAME=a:1",
		} {
			env := maps.Clone(good)
			name, value, _ := strings.Cut("CNI_COMMAND="+command, "=")
			env[name] = value
			if name, value, ok := strings.Cut(wrong, "="); ok {
				env[name] = value
			}
			agree(t, env, conf)
		}
		if command == "UPDATE" {
			continue // an unknown command is wrong with every configuration
		}
		env := maps.Clone(good)
		env["CNI_COMMAND"] = command
		for _, conf := range []string{
			``, `[]`, `{"name":"n"}`, `{"cniVersion":"1.1.0"}`, `{"cniVersion":"1.1.0","name":"a/b"}`, `{"cniVersion":"1.1.0","name":""}`,
			`{"cniVersion":"0.2.0","name":"n"}`, `{"cniVersion":"0.3.1","name":"n"}`, `{"cniVersion":"0.4.0","name":"n"}`,
			`{"cniVersion":"1.0.0","name":"n"}`, `{"cniVersion":"2.0.0","name":"n"}`,
		} {
			agree(t, env, conf)
		}
	}
}

// agree compares the error codes of parseCall and the library for a call.
func agree(t *testing.T, env map[string]string, conf string) {
	t.Helper()
	_, said := parseCall(func(name string) string { return env[name] }, strings.NewReader(conf))
	var ours uint
	if coded, ok := errors.AsType[*types.Error](said); ok {
		ours = coded.Code
	} else if said != nil {
		t.Errorf("%v %s: %v has no code", env, conf, said)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestCallsAreAcceptedAsTheCNILibraryDoes$")
	cmd.Env = append(os.Environ(), skelEnv+"=1")
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdin = strings.NewReader(conf)
	out, err := cmd.Output()
	var theirs types.Error
	if err != nil {
		if jsonErr := json.Unmarshal(out, &theirs); jsonErr != nil || theirs.Code == 0 {
			t.Fatalf("the library's plugin: %v: %s", err, out)
		}
	}
	if ours != theirs.Code {
		t.Errorf("%v %s: code %d (%v), the library says %d (%s)", env, conf, ours, said, theirs.Code, theirs.Msg)
	}
}

func TestVersionIsAnsweredAsByTheCNILibrary(t *testing.T) {
	var ours, theirs bytes.Buffer
	getenv := func(name string) string { return map[string]string{"CNI_COMMAND": "VERSION"}[name] }
	if err := answer(getenv, strings.NewReader(""), &ours); err != nil {
		t.Fatal(err)
	}
	if err := version.PluginSupports(versions()...).Encode(&theirs); err != nil {
		t.Fatal(err)
	}
	if ours.String() != theirs.String() {
		t.Errorf("got %s, want %s", &ours, &theirs)
	}
}

// A valid name is a single element of a path.
func TestNamesStayInTheirDirectory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOf(rapid.RuneFrom([]rune("aZ09_.-/@\x00\n ä"))).Draw(t, "name")
		if isName(s) && (strings.ContainsAny(s, "/@\x00\n ä") || strings.HasPrefix(s, ".")) {
			t.Fatalf("%q is taken for a name", s)
		}
	})
}

func TestDelegateGetsTheEnvironmentWithTheGivenVariables(t *testing.T) {
	t.Setenv("CNI_COMMAND", "GC")
	t.Setenv("CNI_CONTAINERID", "")
	got := invocation{Env: []string{"CNI_COMMAND=DEL"}}.environ()
	if n := count(got, "CNI_COMMAND="); n != 1 || count(got, "CNI_COMMAND=DEL") != 1 {
		t.Errorf("the command is there %d times in %v, want the one that was set", n, got)
	}
	if count(got, "CNI_CONTAINERID=") != 1 || len(got) != len(os.Environ()) {
		t.Errorf("got %v, want all of %v", got, os.Environ())
	}
}

func count(all []string, prefix string) (n int) {
	for _, s := range all {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

func TestStartSaysHowAProgramEnded(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for script, want := range map[string]string{"true": "<nil>", "exit 3": "exit status 3", "kill -9 $$": "ended by signal: killed"} {
		file := t.TempDir() + "/plugin"
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(start(file, os.Environ(), [3]*os.File{null, null, null})); got != want {
			t.Errorf("%s: got %s, want %s", script, got, want)
		}
	}
}
