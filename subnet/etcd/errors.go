package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrUnavailable says that etcd did not answer, or has no quorum. Trying again helps.
	ErrUnavailable = errors.New("etcd is not available")

	// ErrRefused says that etcd answered and refused: its database is full, or it does not
	// accept the user or the password, or a permission is missing. An operator must act;
	// the error's text says how.
	ErrRefused = errors.New("etcd refused the request")

	// ErrNoNetwork says that there is no network document yet.
	ErrNoNetwork = errors.New("no network document")

	// ErrLeaseLost says that a claim is no longer in the store as it was written: expired,
	// deleted, taken by another node, or etcd was replaced. Acquire again.
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

// explain adds to an error of etcd's client the action and the remedy.
func (c *client) explain(what string, err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", what, context.Canceled)
	}
	if remedy := c.remedy(err); remedy != "" {
		return refusal{what: what, cause: err, remedy: remedy}
	}
	endpoints := strings.Join(c.opts.Endpoints, ",")
	if memberRefuses(err) {
		return fmt.Errorf("%s: %w at %s: list voting members that have a leader in --etcd-endpoints (%s)", what, ErrUnavailable, endpoints, c.cause(err))
	}
	if errors.Is(err, context.DeadlineExceeded) || unavailable(err) {
		cause := c.cause(err)
		return fmt.Errorf("%s: %w at %s: %s (%s)%s", what, ErrUnavailable, endpoints, awayRemedy(fmt.Sprint(cause), c.opts.Endpoints), cause, proxyHint(c.opts.Endpoints, http.ProxyFromEnvironment))
	}
	return fmt.Errorf("%s: %w", what, err)
}

// remedy returns the operator's remedy for a refusal, "" when err is not a refusal.
func (c *client) remedy(err error) string {
	switch {
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Sprintf("etcd user %q may not: grant its role readwrite on the prefix %s/", c.opts.Username, c.opts.Prefix)
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return "etcd asks for a user: give --etcd-username and LODEN_ETCD_PASSWORD"
	case errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrUserNotFound):
		return "etcd refuses the user name or password: see --etcd-username and LODEN_ETCD_PASSWORD"
	case errors.Is(err, rpctypes.ErrAuthNotEnabled):
		return "etcd has its authentication switched off: remove --etcd-username, or run `etcdctl auth enable`"
	case errors.Is(err, rpctypes.ErrNoSpace):
		return "etcd's database is full, and it accepts no write: compact it (`etcdctl compact REVISION`), " +
			"run `etcdctl defrag`, then `etcdctl alarm disarm`"
	case errors.Is(err, rpctypes.ErrCorrupt):
		return "etcd has raised its alarm CORRUPT: see etcd's log, and `etcdctl alarm list`"
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return "the request is larger than etcd's --max-request-bytes"
	}
	return ""
}

// refusal is an answer of etcd that refuses a request.
type refusal struct {
	what   string // was being done
	cause  error  // as etcd says it
	remedy string
}

func (r refusal) Error() string { return fmt.Sprintf("%s: %v: %s", r.what, r.cause, r.remedy) }

func (r refusal) Unwrap() []error { return []error{ErrRefused, r.cause} }

// memberRefuses reports whether err is the refusal of a single member, which the other
// members need not share. The request was not carried out.
func memberRefuses(err error) bool {
	if err == nil {
		return false
	}
	for _, refused := range []error{rpctypes.ErrGRPCNotSupportedForLearner, rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCNotCapable, rpctypes.ErrGRPCStopped} {
		if rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(refused) {
			return true
		}
	}
	return code(err) == codes.Unimplemented // a server that is not etcd
}

// unavailable reports whether another try may find etcd well.
func unavailable(err error) bool {
	switch code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted:
		return true
	case codes.ResourceExhausted: // too many requests at once
		return errors.Is(err, rpctypes.ErrTooManyRequests)
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
