package page_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/loden-net/loden/network/node/history"
	"github.com/loden-net/loden/network/node/page"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is a page in memory: it keeps what a stream sends.
type client struct {
	header http.Header
	mu     sync.Mutex // guards text
	text   strings.Builder
}

func newClient() *client { return &client{header: http.Header{}} }

func (c *client) Header() http.Header              { return c.header }
func (c *client) WriteHeader(int)                  {}
func (c *client) Flush()                           {}
func (c *client) SetWriteDeadline(time.Time) error { return nil }

func (c *client) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *client) count(part string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Count(c.text.String(), part)
}

func open(l *page.Live, c *client) (leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		l.ServeHTTP(c, httptest.NewRequestWithContext(ctx, http.MethodGet, "/live", nil))
		close(done)
	}()
	return func() { cancel(); <-done }
}

func TestPagesShareTheReportsOfAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := 0
		live := page.NewLive(func(context.Context) any { made++; return made }, &history.Events{})
		a, b := newClient(), newClient()
		leaveA := open(live, a)
		synctest.Wait()
		time.Sleep(time.Second) // of the bubble
		leaveB := open(live, b)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if made != 6 {
			t.Errorf("%d reports in 11 s, want one each 2 s", made)
		}
		if n := a.count("event: report"); n != 6 {
			t.Errorf("page a got %d reports", n)
		}
		if n := b.count("event: report"); n != 6 {
			t.Errorf("page b got %d reports", n)
		}
		leaveA()
		leaveB()
	})
}

// A report of a large cluster takes long to make: the stream then sends fewer of them.
func TestAReportThatTakesLongComesRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := 0
		live := page.NewLive(func(context.Context) any { time.Sleep(time.Second); made++; return made }, &history.Events{})
		done := open(live, newClient())
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if made != 3 {
			t.Errorf("%d reports of 1 s each in a minute, want one each 20 s", made)
		}
		done()
	})
}

func TestAnEventArrivesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events history.Events
		events.Add(history.Event{Kind: history.Ready, Text: "before"})
		live, c := page.NewLive(func(context.Context) any { return 0 }, &events), newClient()
		done := open(live, c)
		synctest.Wait()
		events.Add(history.Event{Kind: history.PeerLeft, Object: "beta"})
		synctest.Wait()
		if c.count("event: event") != 2 || c.count(`"object":"beta"`) != 1 {
			t.Errorf("got %s", c.text.String())
		}
		done()
	})
}

func TestStreamsAreBoundedInNumberAndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := page.NewLive(func(context.Context) any { return 0 }, &history.Events{})
		ended := make(chan struct{}, page.MaxClients)
		for range page.MaxClients {
			go func() {
				live.ServeHTTP(newClient(), httptest.NewRequest(http.MethodGet, "/live", nil))
				ended <- struct{}{}
			}()
		}
		synctest.Wait()
		refused := httptest.NewRecorder()
		live.ServeHTTP(refused, httptest.NewRequest(http.MethodGet, "/live", nil))
		if refused.Code != http.StatusServiceUnavailable || !strings.Contains(refused.Body.String(), "close one") {
			t.Errorf("client %d: %d %s", page.MaxClients+1, refused.Code, refused.Body)
		}
		began := time.Now()
		for range page.MaxClients {
			<-ended
		}
		if took := time.Since(began); took != 10*time.Minute {
			t.Errorf("the streams ended after %v", took)
		}
	})
}

func TestEndEndsAllStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := page.NewLive(func(context.Context) any { return 0 }, &history.Events{})
		done := open(live, newClient())
		synctest.Wait()
		live.End()
		live.End()
		synctest.Wait()
		done()
	})
}

// The time limits of the node's server are for short answers, and must not cut a stream.
func TestAStreamOutlivesTheTimeLimitsOfTheServer(t *testing.T) {
	live := page.NewLive(func(context.Context) any { return 0 }, &history.Events{})
	server := httptest.NewUnstartedServer(live)
	server.Config.ReadTimeout, server.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	server.Start()
	defer server.Close()
	defer live.End()
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	reports := 0
	for lines := bufio.NewScanner(resp.Body); reports < 2 && lines.Scan(); {
		if lines.Text() == "event: report" {
			reports++
		}
	}
	if reports != 2 {
		t.Errorf("the stream ended after %d reports", reports)
	}
}
