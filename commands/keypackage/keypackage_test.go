package keypackage_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"quicprochat/commands/keypackage"
	"quicprochat/rpc/sim"
)

var (
	device = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	noon   = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
)

func newPackage() *sim.KeyPackage {
	return sim.NewKeyPackage(device.Public().(ed25519.PublicKey), 1, "noon", noon)
}

// check is what a server does with an upload.
func check(data []byte) error {
	k, err := keypackage.Parse(data)
	if err != nil {
		return err
	}
	if err := k.Verify(); err != nil {
		return err
	}
	return k.CheckLifetime(uint64(noon.UnixMilli()))
}

func TestReadsWhatItSays(t *testing.T) {
	p := newPackage()
	p.Suite, p.Suites = 3, []uint16{3}
	p.Extensions = []sim.Extension{{Type: 0x3a3a, Data: []byte("grease")}, sim.LastResort}
	p.LeafExtensions = []sim.Extension{{Type: 1, Data: []byte("application id")}, {Type: 10}}
	data := p.Sign(device)
	k, err := keypackage.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(data); err != nil {
		t.Fatal(err)
	}
	if k.Suite != 3 || !k.LastResort || k.NotBefore != p.NotBefore || k.NotAfter != p.NotAfter || !bytes.Equal(k.Raw, data) ||
		!bytes.Equal(k.InitKey, p.InitKey) || !bytes.Equal(k.EncryptionKey, p.EncryptionKey) || !bytes.Equal(k.SignatureKey, p.SignatureKey) {
		t.Errorf("read %+v", k)
	}
	if plain, err := keypackage.Parse(newPackage().Sign(device)); err != nil || plain.LastResort {
		t.Errorf("a package for one use: last resort %v, %v", plain.LastResort, err)
	}
}

// TestRules spoils one thing at a time, signed as a client with that fault would
// sign it.
func TestRules(t *testing.T) {
	second := func(d time.Duration) uint64 { return uint64(noon.Add(d).Unix()) }
	for name, c := range map[string]struct {
		spoil func(*sim.KeyPackage)
		want  error
	}{
		"nothing":                       {func(*sim.KeyPackage) {}, nil},
		"another version":               {func(p *sim.KeyPackage) { p.Version = 2 }, keypackage.ErrVersion},
		"an unknown suite":              {func(p *sim.KeyPackage) { p.Suite, p.Suites = 0x0a0a, []uint16{0x0a0a} }, keypackage.ErrSuite},
		"a suite of another scheme":     {func(p *sim.KeyPackage) { p.Suite, p.Suites = 2, []uint16{2} }, keypackage.ErrKey},
		"a suite with Ed448":            {func(p *sim.KeyPackage) { p.Suite, p.Suites = 4, []uint16{4} }, keypackage.ErrKey},
		"an init key that is too short": {func(p *sim.KeyPackage) { p.InitKey = p.InitKey[:31] }, keypackage.ErrKey},
		"no encryption key":             {func(p *sim.KeyPackage) { p.EncryptionKey = nil }, keypackage.ErrKey},
		"one key for both":              {func(p *sim.KeyPackage) { p.EncryptionKey = p.InitKey }, keypackage.ErrKey},
		"no signature key":              {func(p *sim.KeyPackage) { p.SignatureKey = nil }, keypackage.ErrSignature},
		"another signature key": {func(p *sim.KeyPackage) {
			p.SignatureKey = ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
		}, keypackage.ErrSignature},
		"a credential of a type unknown":    {func(p *sim.KeyPackage) { p.CredentialType, p.Credentials = 9, []uint16{9} }, keypackage.ErrMalformed},
		"a credential it does not support":  {func(p *sim.KeyPackage) { p.Credentials = []uint16{2} }, keypackage.ErrLeaf},
		"certificates":                      {func(p *sim.KeyPackage) { p.CredentialType, p.Credentials, p.Credential = 2, []uint16{2}, []byte{1, 0} }, nil},
		"certificates that are none":        {func(p *sim.KeyPackage) { p.CredentialType, p.Credentials, p.Credential = 2, []uint16{2}, []byte{9, 0} }, keypackage.ErrMalformed},
		"a version it does not support":     {func(p *sim.KeyPackage) { p.Versions = nil }, keypackage.ErrLeaf},
		"a suite it does not support":       {func(p *sim.KeyPackage) { p.Suites = []uint16{3} }, keypackage.ErrLeaf},
		"a leaf from an update":             {func(p *sim.KeyPackage) { p.Source = 2 }, keypackage.ErrLeaf},
		"a leaf from a commit":              {func(p *sim.KeyPackage) { p.Source = 3 }, keypackage.ErrLeaf},
		"a leaf extension it does not know": {func(p *sim.KeyPackage) { p.LeafExtensions = []sim.Extension{{Type: 6}} }, keypackage.ErrExtension},
		"a leaf extension that all know":    {func(p *sim.KeyPackage) { p.LeafExtensions = []sim.Extension{{Type: 5}} }, nil},
		"a doubled leaf extension":          {func(p *sim.KeyPackage) { p.LeafExtensions = []sim.Extension{{Type: 1}, {Type: 1}} }, keypackage.ErrExtension},
		"a doubled extension":               {func(p *sim.KeyPackage) { p.Extensions = []sim.Extension{sim.LastResort, {Type: 7}, sim.LastResort} }, keypackage.ErrExtension},
		"an extension that nobody knows":    {func(p *sim.KeyPackage) { p.Extensions = []sim.Extension{{Type: 0x4a4a}} }, nil},
		"64 extensions":                     {func(p *sim.KeyPackage) { p.Extensions = many(64) }, nil},
		"65 extensions":                     {func(p *sim.KeyPackage) { p.Extensions = many(65) }, keypackage.ErrMalformed},
		"a life of 84 days":                 {func(p *sim.KeyPackage) { p.NotAfter = second(84 * 24 * time.Hour) }, nil},
		"a life of 84 days and a second":    {func(p *sim.KeyPackage) { p.NotAfter = second(84*24*time.Hour + time.Second) }, keypackage.ErrLifetime},
		"an endless life":                   {func(p *sim.KeyPackage) { p.NotBefore, p.NotAfter = 0, ^uint64(0) }, keypackage.ErrLifetime},
		"a life that begins now":            {func(p *sim.KeyPackage) { p.NotBefore = second(0) }, nil},
		"a life that begins in a second":    {func(p *sim.KeyPackage) { p.NotBefore = second(time.Second) }, keypackage.ErrLifetime},
		"a life that is over in a second":   {func(p *sim.KeyPackage) { p.NotAfter = second(time.Second) }, nil},
		"a life that is over now":           {func(p *sim.KeyPackage) { p.NotAfter = second(0) }, keypackage.ErrLifetime},
		"a life that ends before it begins": {func(p *sim.KeyPackage) { p.NotAfter = p.NotBefore - 1 }, keypackage.ErrLifetime},
		"16 KiB":                            {func(p *sim.KeyPackage) { pad(p, keypackage.MaxSize) }, nil},
		"16 KiB and a byte":                 {func(p *sim.KeyPackage) { pad(p, keypackage.MaxSize+1) }, keypackage.ErrTooLarge},
	} {
		p := newPackage()
		c.spoil(p)
		if err := check(p.Sign(device)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func many(n int) (list []sim.Extension) {
	for i := range n {
		list = append(list, sim.Extension{Type: uint16(0xf000 + i)})
	}
	return list
}

// pad brings a package to a size.
func pad(p *sim.KeyPackage, size int) {
	p.Extensions = []sim.Extension{{Type: 0xf000, Data: make([]byte, 8000)}}
	p.Extensions[0].Data = make([]byte, 8000+size-len(p.Sign(device)))
}

// TestEncodingIsStrict changes the encoding and not what it says.
func TestEncodingIsStrict(t *testing.T) {
	data := newPackage().Sign(device)
	message := append([]byte{0, 1, 0, 5}, data...)
	if err := check(message); err != nil {
		t.Errorf("an MLSMessage: %v", err)
	}
	long := slices.Insert(bytes.Clone(data), 4, 0x40) // init_key's length in two bytes
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":                            {nil, keypackage.ErrMalformed},
		"an MLSMessage of another version":   {append([]byte{0, 2, 0, 5}, data...), keypackage.ErrVersion},
		"an MLSMessage that is no package":   {append([]byte{0, 1, 0, 3}, data...), keypackage.ErrMalformed},
		"an MLSMessage with nothing in it":   {message[:5], keypackage.ErrMalformed},
		"an MLSMessage in an MLSMessage":     {append([]byte{0, 1, 0, 5}, message...), keypackage.ErrMalformed},
		"a length in more bytes than needed": {long, keypackage.ErrMalformed},
		"a length of eight bytes":            {slices.Replace(bytes.Clone(data), 4, 5, 0xc0, 0, 0, 0, 0, 0, 0, 32), keypackage.ErrMalformed},
		"a length beyond the end":            {slices.Replace(bytes.Clone(data), 4, 5, 0xbf, 0xff, 0xff, 0xff), keypackage.ErrMalformed},
		"a byte after it":                    {append(bytes.Clone(data), 0), keypackage.ErrMalformed},
	} {
		if _, err := keypackage.Parse(c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for n := range data {
		if _, err := keypackage.Parse(data[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are a KeyPackage", n, len(data))
		}
	}
}

// TestTextsAreSafe: what stands in a package does not get into an error.
func TestTextsAreSafe(t *testing.T) {
	p := newPackage()
	p.Credential = []byte("mallory wrote this")
	p.InitKey = p.InitKey[:3]
	if err := check(p.Sign(device)); err == nil || strings.Contains(err.Error(), "mallory") {
		t.Errorf("the text: %v", err)
	}
}

// FuzzKeyPackage: whatever is read is read whole and exactly, with little memory,
// and what verifies was signed by whom it names.
func FuzzKeyPackage(f *testing.F) {
	p := newPackage()
	f.Add(p.Sign(device))
	p.Extensions, p.LeafExtensions = []sim.Extension{sim.LastResort}, many(3)
	f.Add(append([]byte{0, 1, 0, 5}, p.Sign(device)...))
	p.CredentialType, p.Credential, p.Suite = 2, []byte{1, 0, 0}, 5
	f.Add(p.Sign(device))
	f.Fuzz(func(t *testing.T, data []byte) {
		kept := bytes.Clone(data)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		k, err := keypackage.Parse(data)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(64*len(data)+64<<10) {
			t.Errorf("%d bytes of memory for %d of input", used, len(data))
		}
		if !bytes.Equal(kept, data) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			return
		}
		if n := len(data) - len(k.Raw); n != 0 && (n != 4 || !bytes.Equal(data[:4], []byte{0, 1, 0, 5})) {
			t.Errorf("%d bytes stand before the package", n)
		}
		head := binary.BigEndian.AppendUint16([]byte{0, 1}, uint16(k.Suite))
		if !bytes.HasPrefix(k.Raw, head) || !bytes.Contains(k.Raw, k.InitKey) || !bytes.Contains(k.Raw, k.SignatureKey) {
			t.Error("what was read does not stand there")
		}
		again, err := keypackage.Parse(k.Raw)
		if err != nil || !bytes.Equal(again.Raw, k.Raw) || again.LastResort != k.LastResort || again.NotAfter != k.NotAfter {
			t.Errorf("read again: %v", err)
		}
		if k.Verify() != nil {
			return
		}
		if !k.Suite.Known() || bytes.Equal(k.InitKey, k.EncryptionKey) || k.Ref() == nil {
			t.Error("verified against the rules")
		}
		spoiled := bytes.Clone(k.Raw)
		spoiled[len(spoiled)/2] ^= 1
		if k, err := keypackage.Parse(spoiled); err == nil && k.Verify() == nil {
			t.Error("verifies with a bit flipped")
		}
	})
}
