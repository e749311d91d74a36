// Package history owns the recent past of a node, in memory of a fixed size: the last events,
// and an hour of samples of each peer. It knows neither reports nor how a sample is taken.
package history
