package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// diagnoseLimit bounds the look at an endpoint.
const diagnoseLimit = 500 * time.Millisecond

// diagnose says why no endpoint answers, in the words of the first endpoint that gives a reason: gRPC keeps the reason to itself and lets the time run out.
func (c *client) diagnose() string {
	for _, endpoint := range c.opts.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" {
			continue
		}
		if err := c.knock(u); err != nil {
			text := err.Error()
			return strings.TrimPrefix(text[max(0, strings.LastIndex(text, "connect: ")):], "connect: ")
		}
	}
	return "no answer in time"
}

// knock connects as a request would, and listens for a refusal.
func (c *client) knock(u *url.URL) error {
	ctx, cancel := context.WithTimeout(context.Background(), diagnoseLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	if u.Scheme != "https" {
		return nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.config.TLS != nil {
		conf = c.config.TLS.Clone()
	}
	if conf.ServerName == "" {
		conf.ServerName = u.Hostname()
	}
	conf.NextProtos = []string{"h2"}
	secure := tls.Client(conn, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	// A server that misses our certificate says so after the handshake (TLS 1.3).
	_ = secure.SetReadDeadline(time.Now().Add(diagnoseLimit / 2))
	if _, err := secure.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
