package sim

import "testing"

// TestKeysEndInWorlds: the worlds of every run have people of each way to end a
// key, early enough that something follows.
func TestKeysEndInWorlds(t *testing.T) {
	ends := map[keyEnd]int{}
	for seed := uint64(1); seed <= 200; seed++ {
		for i := range NewWorld(seed).People {
			if how, after := drawKeyEnd(seed, i); after > 0 {
				ends[how]++
			}
		}
	}
	for how := range keyEnds {
		if ends[how] < 20 {
			t.Errorf("%d people of 200 worlds end a key in way %d", ends[how], how)
		}
	}
}
