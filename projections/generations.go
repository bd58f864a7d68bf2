package projections

import (
	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// generationStep is what a new generation adds to the next number of each queue and
// each channel: more than the lost end of the log can have given away.
const generationStep = 1 << 32

// applyGenerationBegun takes back what the lost end of the log may have moved on.
func applyGenerationBegun(b *Batch, ev *pb.GenerationBegun) error {
	if err := checkGeneration(b, ev.GetGeneration()); err != nil {
		return err
	}
	if err := checkActor(b, ev.GetActor()); err != nil {
		return err
	}
	if way := ev.GetActor().GetWay(); way != pb.Actor_DIRECTORY {
		return invalid("a generation was begun by way %d: it is begun on the stopped server's directory", way)
	}
	if err := b.advanceQueues(generationStep); err != nil {
		return err
	}
	if err := b.advanceChannels(generationStep); err != nil {
		return err
	}
	if err := b.spendKeyPackages(); err != nil {
		return err
	}
	tokens, err := keysOfView(b, prefixSession)
	if err != nil {
		return err
	}
	for _, token := range tokens {
		if err := b.endSession(Hash(token)); err != nil {
			return err
		}
	}
	accounts, err := keysOfView(b, prefixReset)
	if err != nil {
		return err
	}
	for _, account := range accounts {
		if err := b.remove(keyOfID(b.scratch(), prefixReset, ID(account))); err != nil {
			return err
		}
	}
	return nil
}

// checkGeneration holds that a generation is a later one than the log's.
func checkGeneration(b *Batch, generation uint32) error {
	body, found, err := ServerConfig(b)
	if err != nil || !found {
		return orInvalid(err, "a log without a configuration")
	}
	config, err := kt.ParseConfig(body)
	if err != nil {
		return b.fault(err)
	}
	_, now, err := kt.ParseOrigin(config.Origin)
	if err != nil {
		return b.fault(err)
	}
	if generation <= now {
		return invalid("generation %d after %d", generation, now)
	}
	return nil
}

// advanceQueues has every queue leave numbers out. What waits in it stays.
func (b *Batch) advanceQueues(step uint64) error {
	devices, err := keysOfView(b, prefixQueue)
	if err != nil {
		return err
	}
	for _, device := range devices {
		q, found, err := Queue(b, Key(device))
		if err != nil || !found {
			return orInvalid(err, "a queue is gone")
		}
		q.NextSeq += step
		if q.Count == 0 {
			q.Head = q.NextSeq
		}
		if err := b.putQueue(Key(device), &q); err != nil {
			return err
		}
	}
	return nil
}

// advanceChannels has every channel leave post numbers out.
func (b *Batch) advanceChannels(step uint64) error {
	channels, err := keysOfView(b, prefixChannel)
	if err != nil {
		return err
	}
	for _, id := range channels {
		c, found, err := ChannelByID(b, ID(id))
		if err != nil || !found {
			return orInvalid(err, "a channel is gone")
		}
		c.LastSeq += step
		if err := b.putChannel(&c); err != nil {
			return err
		}
	}
	return nil
}

// spendKeyPackages takes all packages for one use as used: each may have been given
// away in the lost end. Last resorts stay.
func (b *Batch) spendKeyPackages() error {
	keys, err := keysOfView(b, prefixKeyPackageStock)
	if err != nil {
		return err
	}
	for _, key := range keys {
		device, found, err := DeviceByKey(b, Key(key))
		if err != nil || !found {
			return orInvalid(err, "key packages of a device that is not active")
		}
		stocks, err := KeyPackageStocks(b, device.Key)
		if err != nil {
			return err
		}
		for i := range stocks {
			if err := b.spendStock(device, &stocks[i]); err != nil {
				return err
			}
		}
		if err := b.putStocks(device.Key, stocks); err != nil {
			return err
		}
	}
	return nil
}

func (b *Batch) spendStock(device Device, s *KeyPackageStock) error {
	waiting, err := KeyPackagesOf(b, device.Key, s)
	if err != nil {
		return err
	}
	for _, p := range waiting {
		if err := b.removePackage(device.Key, s, p.Number); err != nil {
			return err
		}
		if err := b.putKnown(device.Key, p.Hash, knownPackage{KeyPackageUsed, s.Suite, p.Number}); err != nil {
			return err
		}
		b.released = append(b.released, PayloadRef{Owner: device.AccountID, ID: p.ID})
	}
	return nil
}

// keysOfView lists the keys of a view's rows, without the prefix.
func keysOfView(r Reader, prefix byte) (keys [][]byte, err error) {
	err = scanView(r, keyOf(nil, prefix), func(key, _ []byte) (bool, error) {
		keys = append(keys, append([]byte(nil), key[1:]...))
		return true, nil
	})
	return keys, err
}
