package projections

import (
	"slices"
	"testing"

	pb "quicprochat/proto/qpcv1"
)

func packageID(n int) ID { return idOf("key package", n) }

// uploaded is package n of a person's device: one for one use unless number is 0.
func uploadedKP(name string, n int, suite uint32, number, expiresMS uint64) *pb.KeyPackagesUploaded {
	device, id := deviceKey(name), packageID(n)
	return &pb.KeyPackagesUploaded{DeviceKey: device[:], Packages: []*pb.KeyPackagesUploaded_Package{{
		PackageId: id[:], CipherSuite: suite, Number: number, Size: 300, Sha256: bytesOf("kp", n), ExpiresMs: expiresMS,
	}}}
}

func takenKP(name string, n int, suite uint32, number, keptMS uint64) *pb.KeyPackagesTaken {
	device, id := deviceKey(name), packageID(n)
	return &pb.KeyPackagesTaken{KeptUntilMs: keptMS, Packages: []*pb.KeyPackagesTaken_Package{{
		DeviceKey: device[:], CipherSuite: suite, Number: number, PackageId: id[:],
	}}}
}

func expiredKP(name string, n int, expiresMS uint64) *pb.KeyPackagesExpired {
	device := deviceKey(name)
	return &pb.KeyPackagesExpired{Packages: []*pb.KeyPackagesExpired_Package{{
		DeviceKey: device[:], Sha256: bytesOf("kp", n), ExpiresMs: expiresMS,
	}}}
}

func releasedKP(name string, n int, keptMS uint64) *pb.KeyPackagesReleased {
	account, id := accountID(name), packageID(n)
	return &pb.KeyPackagesReleased{Packages: []*pb.KeyPackagesReleased_Package{{
		AccountId: account[:], PackageId: id[:], KeptUntilMs: keptMS,
	}}}
}

// waiting are the numbers of a suite's packages that are valid now, in order.
func (w *world) waiting(name string, suite uint16) (numbers []uint64, last ID) {
	w.t.Helper()
	stocks, err := KeyPackageStocks(w.reader(), deviceKey(name))
	if err != nil {
		w.t.Fatalf("stocks: %v", err)
	}
	for i := range stocks {
		if stocks[i].Suite != suite {
			continue
		}
		err := eachPackage(w.reader(), deviceKey(name), &stocks[i], func(p *KeyPackage) bool {
			if p.ValidAt(w.now) {
				numbers = append(numbers, p.Number)
			}
			return true
		})
		if err != nil {
			w.t.Fatalf("packages: %v", err)
		}
		if stocks[i].Last.ValidAt(w.now) {
			last = stocks[i].Last.ID
		}
	}
	return numbers, last
}

func (w *world) hasWaiting(name string, suite uint16, want ...uint64) {
	w.t.Helper()
	if got, _ := w.waiting(name, suite); !slices.Equal(got, want) {
		w.t.Fatalf("packages of suite %d: %v, want %v", suite, got, want)
	}
}

func (w *world) hasReleased(want ...int) {
	w.t.Helper()
	var got, ids []ID
	for _, ref := range w.reader().Released() {
		got = append(got, ref.ID)
	}
	for _, n := range want {
		ids = append(ids, packageID(n))
	}
	if !slices.Equal(got, ids) {
		w.t.Fatalf("released %x, want %x", got, ids)
	}
}

func (w *world) fate(name string, n int) KeyPackageFate {
	w.t.Helper()
	fate, err := FateOfKeyPackage(w.reader(), deviceKey(name), Hash(bytesOf("kp", n)))
	if err != nil {
		w.t.Fatalf("fate: %v", err)
	}
	return fate
}

// TestKeyPackageLife follows packages from upload to oblivion.
func TestKeyPackageLife(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	week := w.now + 7*dayMS
	for n := range 4 {
		w.do(uploadedKP("bob", n, 1, uint64(n+1), week+uint64(n)))
	}
	w.do(uploadedKP("bob", 10, 3, 1, week))
	w.do(uploadedKP("bob", 11, 1, 0, week))
	w.hasWaiting("bob", 1, 1, 2, 3, 4)
	w.hasWaiting("bob", 3, 1)

	w.refuse(uploadedKP("bob", 0, 1, 5, week), "uploaded before")
	w.refuse(uploadedKP("bob", 12, 1, 4, week), "the next is 5")
	w.refuse(uploadedKP("bob", 12, 1, 5, w.now), "expires at")
	w.refuse(uploadedKP("bob", 12, 1<<16, 1, week), "cipher suite")
	w.refuse(uploadedKP("carol", 12, 1, 1, week), "not active")
	w.refuse(&pb.KeyPackagesUploaded{DeviceKey: uploadedKP("bob", 1, 1, 1, week).DeviceKey}, "no key packages")

	// Out of order: what was before the oldest is not looked at again.
	w.do(takenKP("bob", 1, 1, 2, w.now+dayMS))
	w.hasWaiting("bob", 1, 1, 3, 4)
	w.do(takenKP("bob", 0, 1, 1, w.now+dayMS))
	w.hasWaiting("bob", 1, 3, 4)
	w.do(takenKP("bob", 11, 1, 0, w.now+dayMS))
	if _, last := w.waiting("bob", 1); last != packageID(11) {
		t.Errorf("the last resort is used up: %x", last)
	}
	w.hasReleased()
	if w.fate("bob", 0) != KeyPackageUsed || w.fate("bob", 2) != KeyPackageWaits || w.fate("bob", 11) != KeyPackageWaits || w.fate("bob", 99) != KeyPackageUnknown {
		t.Error("fates")
	}
	w.refuse(takenKP("bob", 0, 1, 1, w.now+dayMS), "not there")
	w.refuse(takenKP("bob", 3, 1, 3, w.now+dayMS), "not there") // another one's id
	w.refuse(takenKP("bob", 12, 1, 0, w.now+dayMS), "last resort that is not there")
	w.refuse(takenKP("bob", 2, 1, 3, w.now), "kept until")
	w.refuse(takenKP("bob", 2, 9, 3, w.now+dayMS), "not there")
	w.refuse(uploadedKP("bob", 0, 1, 5, week), "uploaded before")

	// Another last resort takes its place; its bytes stay for two days.
	w.do(uploadedKP("bob", 13, 1, 0, week))
	if w.fate("bob", 11) != KeyPackageUnknown {
		t.Error("the last resort that was replaced is still known")
	}
	w.hasReleased()

	w.refuse(releasedKP("bob", 0, w.now+dayMS), "kept until")
	replaced := w.now + 2*dayMS
	w.now += dayMS
	w.do(releasedKP("bob", 0, w.now))
	w.do(releasedKP("bob", 1, w.now))
	w.hasReleased(0, 1)
	w.refuse(releasedKP("bob", 0, w.now), "not kept")
	w.now += dayMS
	w.do(releasedKP("bob", 11, replaced))
	w.hasReleased(11)

	// The lifetime of one that waits, of a used one, and of the last resort ends.
	w.refuse(expiredKP("bob", 2, week+2), "expires at")
	w.now = week + 2
	w.hasWaiting("bob", 1, 4)
	w.do(expiredKP("bob", 2, week+2))
	w.do(expiredKP("bob", 0, week))
	w.do(expiredKP("bob", 13, week))
	w.hasReleased(2)
	w.refuse(expiredKP("bob", 2, week+2), "not known")
	if w.fate("bob", 0) != KeyPackageUnknown {
		t.Error("a used one is remembered beyond its lifetime")
	}
	w.do(takenKP("bob", 3, 1, 4, w.now+dayMS))
	w.hasWaiting("bob", 1)
	w.do(uploadedKP("bob", 14, 1, 5, w.now+dayMS))
	w.hasWaiting("bob", 1, 5)
}

// TestKeyPackagesDue: what is over is listed within the hour, up to a limit.
func TestKeyPackagesDue(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("bob")
	for n := range 3 {
		w.do(uploadedKP("bob", n, 1, uint64(n+1), w.now+dayMS+uint64(n)))
	}
	w.do(takenKP("bob", 0, 1, 1, w.now+dayMS))
	due := func(limit int) (int, int) {
		expired, err := ExpiredKeyPackages(w.reader(), w.now, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range expired {
			if p.Device != deviceKey("bob") || p.ExpiresMS > w.now {
				t.Errorf("due: %+v", p)
			}
		}
		kept, err := KeptKeyPackages(w.reader(), w.now, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range kept {
			if p.Account != accountID("bob") || p.ID != packageID(0) || p.UntilMS > w.now {
				t.Errorf("due: %+v", p)
			}
		}
		return len(expired), len(kept)
	}
	if e, k := due(10); e != 0 || k != 0 {
		t.Errorf("due at once: %d, %d", e, k)
	}
	w.now += dayMS + hourMS
	if e, k := due(10); e != 3 || k != 1 {
		t.Errorf("due an hour later: %d, %d", e, k)
	}
	if e, _ := due(2); e != 2 {
		t.Errorf("with a limit: %d", e)
	}
}

// TestKeyPackagesLeaveWithTheDevice: nothing that waits is left, and what was used
// is still known until its lifetime is over.
func TestKeyPackagesLeaveWithTheDevice(t *testing.T) {
	for name, key := range map[string]Key{"device": deviceKey("bob"), "identity": identityKey("bob")} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			defer w.close()
			w.register("alice", "bob")
			for n := range 3 {
				w.do(uploadedKP("bob", n, 1, uint64(n+1), w.now+dayMS))
			}
			w.do(uploadedKP("bob", 3, 3, 0, w.now+dayMS))
			w.do(uploadedKP("alice", 4, 1, 1, w.now+dayMS))
			w.do(takenKP("bob", 0, 1, 1, w.now+dayMS))
			w.do(revoked(key, w.now, pb.Authority_KEY))
			w.hasReleased(1, 2, 3)
			w.hasWaiting("bob", 1)
			w.hasWaiting("alice", 1, 1)
			for prefix, want := range map[byte]int{
				prefixKeyPackageStock: 1, prefixKeyPackage: 1, prefixKeyPackageKnown: 2, prefixKeyPackageExpiry: 2, prefixKeyPackageKept: 1,
			} {
				if got := w.rows(prefix); got != want {
					t.Errorf("%d rows with prefix %#x, want %d", got, prefix, want)
				}
			}
			until := w.now + dayMS
			w.now += 2 * dayMS
			w.do(expiredKP("bob", 0, until))
			w.do(releasedKP("bob", 0, until))
			w.hasReleased(0)
		})
	}
}
