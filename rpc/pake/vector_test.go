package pake

import (
	"bytes"
	"crypto/sha512"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bytemare/opaque"
)

var update = flag.Bool("update", false, "rewrite the vector in docs/formats/opaque.md")

const (
	vectorPage  = "../../docs/formats/opaque.md"
	vectorBegin = "<!-- vector: go test ./rpc/pake -run TestVector -update -->\n"
)

// fixed is size bytes that depend on the name only.
func fixed(name string, size int) []byte {
	sum := sha512.Sum512([]byte("qpc OPAQUE vector: " + name))
	return bytes.Clone(sum[:size])
}

// fixedScalar is below the group's order, little-endian, because its last byte
// is 1.
func fixedScalar(name string) []byte { return append(fixed(name, 31), 1) }

// must is for library calls on fixed inputs, which can't fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// vector runs one registration and one login with the real profile and fixed
// randomness, and returns every value by name, in order.
func vector(t *testing.T) []string {
	var lines []string
	show := func(name string, b []byte) []byte {
		lines = append(lines, fmt.Sprintf("    %-26s %x", name, b))
		return b
	}
	conf := profile()
	decode := must(conf.Deserializer())
	material := &Material{Seed: [64]byte(show("oprf_seed", fixed("seed", 64))), PrivateKey: [32]byte(show("server_private_key", fixedScalar("server")))}
	private := must(decode.DecodePrivateKey(material.PrivateKey[:]))
	material.PublicKey = [32]byte(show("server_public_key", private.Group().Base().Multiply(private).Encode()))
	server := must(NewServer(material))
	id := show("credential_identifier", fixed("id", CredentialIDSize))
	password := show("password", []byte("CorrectHorseBatteryStaple"))

	options := KSF{}.options()
	options.OPRFBlind = must(decode.DecodePrivateKey(show("blind_registration", fixedScalar("blind 1"))))
	options.RegistrationEnvelopeNonce = show("envelope_nonce", fixed("envelope", 32))
	client := must(conf.Client())
	request := must(client.RegistrationInit(password, options))
	response := must(server.RegistrationResponse(show("registration_request", request.Serialize()), id))
	options.OPRFBlind = nil // the client has it by now
	upload, export, err := client.RegistrationFinalize(must(decode.RegistrationResponse(show("registration_response", response))), nil, nil, options)
	if err != nil {
		t.Fatal(err)
	}
	record := must(server.ParseRecord(show("registration_record", upload.Serialize())))

	options = KSF{}.options()
	options.OPRFBlind = must(decode.DecodePrivateKey(show("blind_login", fixedScalar("blind 2"))))
	options.AKE = &opaque.AKEOptions{
		Nonce:              show("client_nonce", fixed("client nonce", 32)),
		SecretKeyShareSeed: show("client_keyshare_seed", fixed("client share", 32)),
	}
	client = must(conf.Client())
	ke1 := must(client.GenerateKE1(password, options))
	show("ke1", ke1.Serialize())
	record.inner.CredentialIdentifier = id
	ke2, output, err := server.inner.GenerateKE2(ke1, &record.inner, &opaque.ServerOptions{
		MaskingNonce: show("masking_nonce", fixed("masking", 32)),
		AKE: &opaque.AKEOptions{
			Nonce:              show("server_nonce", fixed("server nonce", 32)),
			SecretKeyShareSeed: show("server_keyshare_seed", fixed("server share", 32)),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ke3, sessionKey, again, err := client.GenerateKE3(must(decode.KE2(show("ke2", ke2.Serialize()))), nil, nil, KSF{}.options())
	if err != nil {
		t.Fatal(err)
	}
	show("ke3", ke3.Serialize())
	show("session_key", sessionKey)
	show("export_key", export)
	if !bytes.Equal(export, again) || !bytes.Equal(sessionKey, output.SessionSecret) || !bytes.Equal(output.ClientMAC, ke3.Serialize()) {
		t.Error("the two ends disagree")
	}
	return lines
}

// The vector holds this profile still: over upgrades of the library, and for
// clients in other languages. A difference locks out every registered user.
func TestVector(t *testing.T) {
	page, err := os.ReadFile(vectorPage)
	if err != nil {
		t.Fatal(err)
	}
	head, got, ok := strings.Cut(string(page), vectorBegin)
	if !ok {
		t.Fatalf("%s has no line %q", vectorPage, vectorBegin)
	}
	want := "\n" + strings.Join(vector(t), "\n") + "\n"
	if *update {
		if err := os.WriteFile(vectorPage, []byte(head+vectorBegin+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("the profile gives other values than docs/formats/opaque.md:\n%s", want)
	}
}
