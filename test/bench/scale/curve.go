package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// charts are the curves that are drawn: a quantity for each file.
var charts = []struct{ file, title, quantity string }{
	{"start.svg", "Start to ready, seconds", "start s"},
	{"restart.svg", "Restart of the daemon to ready, seconds", "restart s"},
	{"cpu.svg", "CPU per join at 10/s, daemon and engine, milliseconds", "CPU ms/join"},
	{"allocated.svg", "Bytes that the daemon allocates per join, KB", "allocated KB/join"},
	{"disk.svg", "Bytes to disk per join, with the write at the end, KB", "disk with exit KB/join"},
	{"join-p50.svg", "Join to configured peer, p50, milliseconds", "join p50 ms"},
	{"join-p99.svg", "Join to configured peer, p99, milliseconds", "join p99 ms"},
	{"burst.svg", "A burst of joins until the last peer is configured, seconds", "burst settled s"},
	{"burst-cpu.svg", "CPU of a burst of joins, seconds", "burst CPU s"},
	{"rss-daemon.svg", "Resident set of the daemon, MB", "RSS daemon MB"},
	{"rss-engine.svg", "Resident set of the engine, MB", "RSS engine MB"},
}

// The plane of a chart, in pixels.
const (
	chartWidth, chartHeight = 640, 360
	left, right             = 70, 150
	top, bottom             = 40, 45
)

// draw writes a chart for every quantity that some subject has.
func (r results) draw(dir string) error {
	var errs []error
	for _, c := range charts {
		text, ok := r.chart(c.title, c.quantity)
		if ok {
			errs = append(errs, os.WriteFile(filepath.Join(dir, c.file), []byte(text), 0o644))
		}
	}
	return errors.Join(errs...)
}

// axis maps values to pixels by their logarithm.
type axis struct{ low, high, from, to float64 }

func (a axis) at(v float64) float64 {
	return a.from + (math.Log10(v)-a.low)/(a.high-a.low)*(a.to-a.from)
}

// chart returns the curves of a quantity over the number of leases, both axes logarithmic.
func (r results) chart(title, quantity string) (string, bool) {
	least, most := math.Inf(1), math.Inf(-1)
	for _, one := range r {
		if v, ok := one.Figures[quantity]; ok && v > 0 {
			least, most = min(least, v), max(most, v)
		}
	}
	sizes := r.sizes()
	if math.IsInf(least, 1) || len(sizes) < 2 {
		return "", false
	}
	x := axis{math.Log10(float64(sizes[0])), math.Log10(float64(sizes[len(sizes)-1])), left, chartWidth - right}
	y := axis{math.Floor(math.Log10(least)), max(math.Ceil(math.Log10(most)), math.Floor(math.Log10(least))+1), chartHeight - bottom, top}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", chartWidth, chartHeight)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n"+`<text x="%d" y="22" font-size="15">%s</text>`+"\n", left, title)
	for _, n := range sizes {
		fmt.Fprintf(&b, `<path d="M%.1f %d V%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n",
			x.at(float64(n)), top, chartHeight-bottom, x.at(float64(n)), chartHeight-bottom+18, n)
	}
	for e := y.low; e <= y.high; e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(&b, `<path d="M%d %.1f H%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n",
			left, y.at(v), chartWidth-right, left-6, y.at(v)+4, v)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">leases</text>`+"\n", (left+chartWidth-right)/2, chartHeight-8)
	r.curves(&b, quantity, x, y)
	b.WriteString("</svg>\n")
	return b.String(), true
}

// curves draws a line with points for each subject, and its name in the margin.
func (r results) curves(b *strings.Builder, quantity string, x, y axis) {
	colours := []string{"#c0392b", "#1f618d", "#7d8c2c", "#7d3c98", "#b9770e"}
	line := 0
	for k, s := range r.subjects() {
		colour := colours[k%len(colours)]
		var points []string
		for _, n := range r.sizes() {
			if v, ok := r.of(s, n, quantity); ok && v > 0 {
				px, py := x.at(float64(n)), y.at(v)
				points = append(points, fmt.Sprintf("%.1f,%.1f", px, py))
				fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s, %d leases: %.4g</title></circle>`+"\n", px, py, colour, s, n, v)
			}
		}
		if len(points) == 0 {
			continue
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), colour)
		fmt.Fprintf(b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", chartWidth-right+10, top+14+18*line, colour, s)
		line++
	}
}
