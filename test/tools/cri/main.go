// Command cri makes pods through a container runtime's CRI socket, as kubelet does, and
// prints the answers as JSON. It is for tests: it knows a single image and a single container a
// pod.
//
//	cri SOCKET run NAME IMAGE HOSTPORT COMMAND...   # {"pod":…,"container":…,"ips":[…]}
//	cri SOCKET exec CONTAINER COMMAND...            # the command's output and exit status
//	cri SOCKET stop POD
//	cri SOCKET status                               # the conditions, a line each
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// limit bounds a whole command; an exec may be a long ping.
const limit = 3 * time.Minute

// parent is where the pods' cgroups are.
const parent = "/loden-e2e"

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: cri SOCKET run|exec|stop|status ...")
	}
	conn, err := grpc.NewClient("unix://"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	c := cri.NewRuntimeServiceClient(conn)
	switch verb, rest := args[1], args[2:]; {
	case verb == "run" && len(rest) > 3:
		return runPod(ctx, c, rest)
	case verb == "exec" && len(rest) > 1:
		return execIn(ctx, c, rest)
	case verb == "stop" && len(rest) == 1:
		if _, err := c.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: rest[0]}); err != nil {
			return err
		}
		_, err := c.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: rest[0]})
		return err
	case verb == "status":
		return status(ctx, c)
	}
	return fmt.Errorf("cannot %v", args[1:])
}

// runPod makes a pod with a single container.
func runPod(ctx context.Context, c cri.RuntimeServiceClient, args []string) error {
	name, image, command := args[0], args[1], args[3:]
	port, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("host port: %w", err)
	}
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name}, Hostname: name,
		LogDirectory: "/run/pods/" + name,
		PortMappings: []*cri.PortMapping{{Protocol: cri.Protocol_TCP, ContainerPort: 80, HostPort: int32(port)}}, // a port
		Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: parent + "/" + name},
	}
	pod, err := c.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return err
	}
	container, err := c.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, SandboxConfig: config, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: image}, Command: command,
		LogPath: "main.log", Linux: &cri.LinuxContainerConfig{},
	}})
	if err != nil {
		return err
	}
	if _, err := c.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: container.ContainerId}); err != nil {
		return err
	}
	is, err := c.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: pod.PodSandboxId})
	if err != nil {
		return err
	}
	ips := []string{is.Status.Network.Ip}
	for _, more := range is.Status.Network.AdditionalIps {
		ips = append(ips, more.Ip)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"pod": pod.PodSandboxId, "container": container.ContainerId, "ips": ips})
}

// execIn runs a command in a container and ends with its status.
func execIn(ctx context.Context, c cri.RuntimeServiceClient, args []string) error {
	r, err := c.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: args[0], Cmd: args[1:], Timeout: int64(limit.Seconds())})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(os.Stdout, string(r.Stdout)+string(r.Stderr)); err != nil {
		return err
	}
	if r.ExitCode != 0 {
		os.Exit(int(r.ExitCode))
	}
	return nil
}

// status prints the runtime's conditions.
func status(ctx context.Context, c cri.RuntimeServiceClient) error {
	s, err := c.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, is := range s.Status.Conditions {
		fmt.Println(is.Type, is.Status, is.Reason, is.Message)
	}
	return nil
}
