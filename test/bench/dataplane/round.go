package main

import (
	"context"
	"fmt"
)

// runRound builds a bed for each contender that has a job, does the jobs and removes the
// beds. Only a bed that cannot be built ends it: a test that fails is told and missing.
func runRound(ctx context.Context, o options, round int, todo []job, r *results) error {
	beds := map[string]*bed{}
	defer func() {
		for _, b := range beds {
			b.close()
		}
	}()
	for _, j := range todo {
		if beds[j.name] != nil {
			continue
		}
		b, err := build(ctx, len(beds), j.contender)
		if err != nil {
			return err
		}
		beds[j.name] = b
	}
	for at := 0; at < len(todo); {
		end := at // of the jobs with the same test
		for end < len(todo) && todo[end].test.name == todo[at].test.name {
			end++
		}
		for i := range end - at { // another first in every round
			j := todo[at+(i+round)%(end-at)]
			if err := try(ctx, o, round, j, beds[j.name], r); err != nil {
				return err
			}
		}
		at = end
	}
	return nil
}

// try runs a job until the hypervisor leaves it alone, and keeps the good values.
func try(ctx context.Context, o options, round int, j job, b *bed, r *results) error {
	for range o.attempts {
		waitQuiet(ctx, o.quiet)
		before := readMachine()
		v, err := b.measure(ctx, o, j.test)
		steal := readMachine().stealSince(before)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Print(line(round, j, v, steal))
		switch {
		case err != nil:
			r.failed++
			fmt.Printf("  failed: %v\n", err)
		case steal > o.maxSteal:
			r.dropped++
			fmt.Print("  dropped: steal\n")
		default:
			fmt.Println()
			r.add(round, j.name, j.test.name, v)
			return nil
		}
	}
	return nil
}
