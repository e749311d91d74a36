package node

import (
	"testing"
	"time"
)

func TestRatesAreOfTheLastSecondsAndNeverOfANewEngine(t *testing.T) {
	var k rateKeeper
	at := func(second int, received int64) PeerReport {
		peers := []PeerReport{{PublicKey: "B", Received: received, Sent: 2 * received}}
		k.fill(peers, time.Unix(1_000_000+int64(second), 0))
		return peers[0]
	}
	if p := at(0, 1000); p.Rated {
		t.Errorf("first report: %+v", p)
	}
	if p := at(10, 3000); !p.Rated || p.ReceivedRate != 200 || p.SentRate != 400 {
		t.Errorf("after 10 s: %+v", p)
	}
	if p := at(20, 3000); !p.Rated || p.ReceivedRate != 0 {
		t.Errorf("a silent peer: %+v", p)
	}
	if p := at(30, 5); p.Rated {
		t.Errorf("the counters began anew: %+v", p)
	}
	if p := at(1000, 50); p.Rated {
		t.Errorf("after a long time without a report: %+v", p)
	}
}
