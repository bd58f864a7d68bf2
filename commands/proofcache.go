package commands

import (
	"sync"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// finishedProofs keeps what was proved under one checkpoint: of a person whom many
// look up, and of one who is looked up again before the next checkpoint, nothing
// is read and hashed twice. What it gives is shared: do not change it.
type finishedProofs struct {
	mu        sync.RWMutex
	histories map[historyKey]*history
	maps      map[string]*pb.MapProof // by their labels, one behind the other
}

// historyKey names a history: from is what the request said.
type historyKey struct {
	kind kt.Kind
	id   string
	from uint32
}

// history is a HistoryProof with what belongs to it.
type history struct {
	proof  *pb.HistoryProof
	labels []kt.Label
	// The newest value, decoded: of an account or an identity that exists.
	binding *pb.AccountBinding
	keySet  *pb.KeySet
}

const (
	// maxHistories bounds the histories of a checkpoint. One takes about 1.5 KB.
	maxHistories = 8192
	// maxMapProofs bounds its map proofs. One takes about 3 KB.
	maxMapProofs = 4096
)

func (f *finishedProofs) history(k historyKey) *history {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.histories[k]
}

// keep adds a history while there is room: a checkpoint does not live long.
func (f *finishedProofs) keep(k historyKey, h *history) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.histories == nil {
		f.histories = make(map[historyKey]*history)
	}
	if len(f.histories) < maxHistories {
		f.histories[k] = h
	}
}

// mapProof proves labels under a map, or finds that it did.
func (f *finishedProofs) mapProof(r kt.MapReader, labels []kt.Label) (*pb.MapProof, error) {
	key := make([]byte, 0, 512)
	for i := range labels {
		key = append(key, labels[i][:]...)
	}
	f.mu.RLock()
	proof := f.maps[string(key)]
	f.mu.RUnlock()
	if proof != nil {
		return proof, nil
	}
	proof, err := kt.ProveMap(r, labels)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.maps == nil {
		f.maps = make(map[string]*pb.MapProof)
	}
	if len(f.maps) < maxMapProofs {
		f.maps[string(key)] = proof
	}
	return proof, nil
}
