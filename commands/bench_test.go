package commands

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// benchPair makes senders and recipients: one pair per connection of the
// server's own load driver.
const benchPairs = 16

// BenchmarkEngineEnqueue measures one durable message of 1 KiB through the
// engine on the real file system, at 1 to 256 in flight.
func BenchmarkEngineEnqueue(b *testing.B) {
	for _, inFlight := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("inflight=%d", inFlight), func(b *testing.B) { benchmarkEnqueue(b, inFlight) })
	}
}

func benchmarkEnqueue(b *testing.B, inFlight int) {
	d := &bed{t: b, fs: vfs.Default}
	b.Chdir(b.TempDir())
	d.vrf = createLog(b, d.fs, bedDir)
	d.open(Options{})
	d.engine.Do(context.Background(), &Command{Decide: nothing})
	people := make([]persona, benchPairs)
	for i := range people {
		people[i] = d.register(i)
	}
	payload := make([]byte, 1024)
	rand.Read(payload)
	before := d.engine.Counters()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range inFlight {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				from, to := people[n%benchPairs], people[(n+1)%benchPairs]
				c := sending(from, to, requestID(d.engine.Now(), uint64(n)), payload)
				if _, err := d.engine.Do(context.Background(), c); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	now := d.engine.Counters()
	b.ReportMetric(float64(b.N)/float64(now.Groups-before.Groups), "msgs/group")
	b.ReportMetric(float64(now.Groups-before.Groups)/float64(now.Rounds-before.Rounds), "groups/anchor")
	d.close()
}

// BenchmarkReplay measures a start without views: decoding, comparing leaves and
// applying, per event.
func BenchmarkReplay(b *testing.B) {
	d := newBed(b, vfs.NewMem())
	alice, bob := d.register(1), d.register(2)
	var wg sync.WaitGroup
	const senders, each = 64, 1000
	for w := range senders {
		wg.Go(func() {
			for i := range each {
				c := sending(alice, bob, requestID(d.engine.Now(), uint64(w*each+i)), []byte("x"))
				if _, err := d.engine.Do(context.Background(), c); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	size := d.log.Size()
	d.close()
	for b.Loop() {
		b.StopTimer()
		if err := d.fs.RemoveAll(bedDir + "/views"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		d.open(Options{})
		b.StopTimer()
		d.close()
		b.StartTimer()
	}
	b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
