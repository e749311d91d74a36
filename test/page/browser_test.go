// Package page_test looks at the page of a node in a real browser, Debian's chromium.
package page_test

import (
	"context"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/loden-net/loden/network/node/history"
	"github.com/loden-net/loden/test/page"
)

var screenshots = flag.String("screenshots", "", "directory for pictures of the page, light and dark")

// browser starts chromium once for all tests; each test has a tab of its own.
func browser(t *testing.T) context.Context {
	t.Helper()
	dir, err := os.MkdirTemp("", "loden-page") // chromium leaves its lock there; t.TempDir has too long a path for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.WindowSize(1240, 900), chromedp.Env("TMPDIR="+dir))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(end)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start chromium: %v (apt-get install chromium)", err)
	}
	return ctx
}

// tab is the page of a cluster in the browser.
type tab struct {
	*testing.T
	ctx context.Context

	mu         sync.Mutex // guards complaints
	complaints []string   // of the console
}

// open shows the page of a cluster.
func open(t *testing.T, parent context.Context, c *page.Cluster) *tab {
	t.Helper()
	handler, end := c.Handler()
	server := httptest.NewServer(handler)
	ctx, closeTab := chromedp.NewContext(parent)
	t.Cleanup(func() { closeTab(); end(); server.Close() })
	b := &tab{T: t, ctx: ctx}
	chromedp.ListenTarget(ctx, b.listen)
	b.run(log.Enable(), chromedp.Navigate(server.URL))
	b.await(`document.getElementById("live").textContent === "live"`)
	return b
}

// listen keeps every error and warning of the console: refused resources among them.
func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, e.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		b.complaints = append(b.complaints, fmt.Sprint(e.Type, " ", e.Args))
	case *log.EventEntryAdded:
		b.complaints = append(b.complaints, e.Entry.Text+" "+e.Entry.URL)
	}
}

func (b *tab) run(actions ...chromedp.Action) {
	b.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.Fatal(err)
	}
}

// await waits until a JavaScript expression is true.
func (b *tab) await(expression string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 15*time.Second)
	defer cancel()
	if err := chromedp.Run(ctx, chromedp.Poll(expression, nil, chromedp.WithPollingInterval(50*time.Millisecond))); err != nil {
		b.Fatalf("%s: %v; the page says %.300q, the console %q", expression, err, b.text("main"), b.complaints)
	}
}

func (b *tab) text(selector string) string {
	var s string
	b.run(chromedp.Text(selector, &s, chromedp.ByQuery))
	return s
}

// quiet fails the test for anything that the console shows.
func (b *tab) quiet() {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		b.Errorf("the console shows: %s", c)
	}
}

// pictures keeps a picture of the page, light and dark, when -screenshots asks for it.
func (b *tab) pictures(name string) {
	b.Helper()
	if *screenshots == "" {
		return
	}
	for _, scheme := range []string{"light", "dark"} {
		var data []byte
		b.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
			chromedp.Evaluate(`document.activeElement.blur(); scrollTo(0, 0)`, nil),
			chromedp.Sleep(2500*time.Millisecond), // a report later
			chromedp.FullScreenshot(&data, 100))
		keep(b.T, name+"-"+scheme+".png", data)
		b.run(chromedp.CaptureScreenshot(&data))
		keep(b.T, name+"-"+scheme+"-top.png", data)
	}
}

func keep(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(*screenshots, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestThePageInABrowser(t *testing.T) {
	ctx := browser(t)
	t.Run("three nodes, and a cable is pulled", func(t *testing.T) {
		c := page.NewCluster(3, time.Now())
		b := open(t, ctx, c)
		b.await(`document.querySelectorAll(".matrix td.up").length === 6`)
		b.await(`document.getElementById("verdict").textContent === "alpha is ready, 2 peers, no problem"`)
		b.await(`document.querySelectorAll("#event-list li").length === 6`)
		b.await(`document.querySelectorAll("#plan dt").length === 3`)
		b.run(chromedp.Click(`#peer-table button`, chromedp.ByQuery))
		b.await(`document.querySelectorAll("#plots svg").length === 4`)
		b.pictures("3-nodes")

		c.Set(0, 1, "down")
		c.Set(1, 0, "down")
		c.Events.Add(history.Event{At: time.Now(), Kind: history.Path, Object: "beta", Text: "IPv4 path: down, was up"})
		began := time.Now()
		b.await(`document.querySelectorAll(".matrix td.down").length >= 1`)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the cable was seen after %v", took)
		}
		b.await(`document.getElementById("verdict").textContent === "alpha: 1 of 2 peers is down"`)
		b.await(`document.querySelector("#problems .remedy").textContent.includes("UDP port 51820")`)
		b.await(`document.querySelector("#event-list li").textContent.includes("beta IPv4 path: down")`)
		b.await(`document.querySelector("#topology line.down") !== null`)

		b.run(chromedp.Evaluate(`document.querySelector("input[name=family][value=ipv6]").click()`, nil))
		b.await(`document.querySelectorAll(".matrix td.up").length >= 4`) // the other node's own view is away
		b.run(chromedp.Evaluate(`document.querySelector("input[name=metric][value=mtu]").click()`, nil))
		b.await(`document.querySelector(".matrix td.up").textContent.startsWith("1420")`)
		b.quiet()
	})
	t.Run("twenty nodes", func(t *testing.T) {
		b := open(t, ctx, page.NewCluster(20, time.Now()))
		b.await(`document.querySelectorAll(".matrix td.down").length >= 19`)
		if got := b.text("#matrix-summary"); !strings.Contains(got, "no answer of 1 node") {
			t.Errorf("summary: %s", got)
		}
		b.await(`document.querySelector("#pairs").textContent.includes("19 nodes → worker-015")`)
		b.run(chromedp.Click(`#peer-table button`, chromedp.ByQuery))
		b.await(`document.querySelectorAll("#plots svg").length === 4`)
		b.pictures("20-nodes")
		b.quiet()
	})
	t.Run("two hundred nodes, by keyboard", func(t *testing.T) {
		b := open(t, ctx, page.NewCluster(200, time.Now()))
		b.await(`document.querySelector("canvas.picture") !== null`)
		b.await(`document.getElementById("topology-summary").textContent.includes("500 of 19900 paths are drawn")`)
		b.run(chromedp.Focus("canvas.picture", chromedp.ByQuery),
			chromedp.Evaluate(`for (const key of ["ArrowDown", "ArrowRight", "ArrowRight"]) document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }))`, nil))
		b.await(`document.querySelector("#matrix-body [aria-live]").textContent.startsWith("control-1 → control-3")`)
		b.await(`document.querySelectorAll("#peer-table tbody tr").length === 100`)
		b.pictures("200-nodes")
		b.quiet()
	})
	t.Run("every control has a name and can be reached by the Tab key", func(t *testing.T) {
		b := open(t, ctx, page.NewCluster(3, time.Now()))
		b.await(`document.querySelectorAll("#peer-table button").length === 2`)
		var nameless []string
		b.run(chromedp.Evaluate(`[...document.querySelectorAll("button, input, select, a, [tabindex], [role=img]")].filter((node) => {
			const named = node.getAttribute("aria-label") || node.getAttribute("aria-labelledby") || node.textContent.trim() || node.labels?.length;
			return !named || node.tabIndex < 0 && node.getAttribute("role") !== "img";
		}).map((node) => node.outerHTML)`, &nameless))
		for _, node := range nameless {
			t.Errorf("no name or no way by keyboard: %.200s", node)
		}
		b.quiet()
	})
}
