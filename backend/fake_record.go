package backend

import "maps"

// fakeRecord is the memory of a Fake.
type fakeRecord struct{ *Fake }

func (f fakeRecord) load() (endpoints, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.record), nil
}

func (f fakeRecord) save(all endpoints) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record = maps.Clone(all)
	return nil
}

func (f fakeRecord) add(some endpoints) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.record == nil {
		f.record = endpoints{}
	}
	for key, at := range some {
		f.record.set(key, at)
	}
	return nil
}
