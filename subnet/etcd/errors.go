package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrUnavailable says that etcd did not answer, or has no quorum. Trying again helps.
	ErrUnavailable = errors.New("etcd is not available")

	// ErrNoNetwork says that there is no network document yet.
	ErrNoNetwork = errors.New("no network document")

	// ErrLeaseLost says that a claim is no longer in the store as it was written: expired,
	// deleted, taken by another, or etcd is another one. Acquire again.
	ErrLeaseLost = errors.New("lease lost")

	// ErrNameTaken says that a living lease has this node's name and another node's
	// identity.
	ErrNameTaken = errors.New("node name is taken")

	// ErrKeyTaken says that another machine has this node's private key and has taken its
	// lease: the machines were cloned.
	ErrKeyTaken = errors.New("public key is taken")

	// ErrNoLease says that there is no lease of that name.
	ErrNoLease = errors.New("no such lease")

	// ErrWouldMove says that a network document does not fit living leases.
	ErrWouldMove = errors.New("network document does not fit living leases")
)

// explain adds to an error of etcd's client what was being done and what to try.
func (c *client) explain(what string, err error) error {
	endpoints := strings.Join(c.opts.Endpoints, ",")
	var hint string
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", what, context.Canceled)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		hint = fmt.Sprintf("etcd user %q may not: grant its role readwrite on the prefix %s/", c.opts.Username, c.opts.Prefix)
	case errors.Is(err, rpctypes.ErrUserEmpty):
		hint = "etcd asks for a user: give --etcd-username and LODEN_ETCD_PASSWORD"
	case errors.Is(err, rpctypes.ErrAuthFailed):
		hint = "etcd refuses the user name or password: see --etcd-username and LODEN_ETCD_PASSWORD"
	case errors.Is(err, context.DeadlineExceeded), unavailable(err):
		return fmt.Errorf("%s: %w at %s: start it, or see --etcd-endpoints (%s)", what, ErrUnavailable, endpoints, c.cause(err))
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w: %s", what, err, hint)
}

// unavailable reports whether another try may find etcd well.
func unavailable(err error) bool {
	switch code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted:
		return true
	default:
		return errors.Is(err, clientv3.ErrNoAvailableEndpoints)
	}
}

func code(err error) codes.Code {
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return e.Code()
	}
	return status.Code(err)
}

// cause is the part of a gRPC error that helps a reader: "connection refused", "x509:
// certificate signed by unknown authority".
func (c *client) cause(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || code(err) == codes.DeadlineExceeded {
		return c.diagnose()
	}
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	if _, after, ok := strings.Cut(text, "connect: "); ok {
		text = after
	}
	return strings.Trim(strings.TrimPrefix(text, "connection error: desc = "), `"`)
}
