package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

func envCommand() *cobra.Command {
	var subnetFile string
	var docker bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print this node's subnet as shell variables, or as options of dockerd",
		Long: "Print the content of subnet.env. With --docker print it as options of dockerd, in the form of flannel's " +
			"mk-docker-opts.sh: one variable each, and DOCKER_OPTS with all of them.",
		Example: "  loden env --docker >/run/docker_opts.env   # EnvironmentFile= of docker.service; ExecStart=dockerd $DOCKER_OPTS",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := config.LoadEnv(subnetFile)
			if err != nil {
				return err
			}
			env, ok := found.Get()
			if !ok {
				return fmt.Errorf("read %s: not there yet: loden run writes it when the data path stands, see loden status", subnetFile)
			}
			text := string(env.Bytes())
			if docker {
				text = dockerOptions(env)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	cmd.Flags().StringVar(&subnetFile, "subnet-file", "/run/flannel/subnet.env", "file to read")
	cmd.Flags().BoolVar(&docker, "docker", false, "print options of dockerd")
	return cmd
}

// dockerOptions returns env as options of dockerd, a shell variable a line. Where the
// daemon masquerades docker must not, or pods would see the bridge's address.
func dockerOptions(env config.Env) string {
	type option struct{ name, value string }
	var all []option
	for f, subnet := range env.Subnets.All() {
		if f == opt.V4 {
			all = append(all, option{"BIP", "--bip=" + config.Gateway(subnet).String()})
		} else {
			all = append(all, option{"IPV6", "--ipv6 --fixed-cidr-v6=" + subnet.String()})
		}
	}
	all = append(all,
		option{"IPMASQ", fmt.Sprintf("--ip-masq=%t", !env.Masq)},
		option{"MTU", fmt.Sprintf("--mtu=%d", env.MTU)})
	var out strings.Builder
	var values []string
	for _, o := range all {
		fmt.Fprintf(&out, "DOCKER_OPT_%s=%q\n", o.name, o.value)
		values = append(values, o.value)
	}
	fmt.Fprintf(&out, "DOCKER_OPTS=%q\n", strings.Join(values, " "))
	return out.String()
}
