package commands_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestKeyPackagesFull: a device has at most 100 KeyPackages for one use of a cipher
// suite. What would be more is refused as a whole; last resorts and other suites have
// room of their own, and what was given away makes room.
func TestKeyPackagesFull(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.people("alice", w.arguments([]string{"bob"}))
		upload := func(packages ...string) string {
			return "bob UploadKeyPackage key_packages=" + strings.Join(packages, ",")
		}
		var most []string
		for i := range 100 {
			most = append(most, fmt.Sprint("kp:bob/1:n", i))
		}
		const full = "RateLimited KEY_PACKAGES_FULL limit=100"
		counts := func(single int, more string) string {
			return fmt.Sprintf("counts=[{cipher_suite=1 single_use=%d%s} {cipher_suite=3 single_use=1}] server_time_ms=+0s cipher_suites=[1 3]", single, more)
		}
		for _, step := range []struct{ line, want string }{
			{upload(most...), "Ok stored=100 counts=[{cipher_suite=1 single_use=100}] server_time_ms=+0s cipher_suites=[1 3]"},
			{upload("kp:bob/1:more"), full},
			{upload("kp:bob/1:last:last", "kp:bob/1:more"), full},
			{upload(most[:3]...), "Ok counts=[{cipher_suite=1 single_use=100}] server_time_ms=+0s cipher_suites=[1 3]"},
			{upload("kp:bob/1:other:3"), "Ok stored=1 " + counts(100, "")},
			{upload("kp:bob/1:last:last"), "Ok stored=1 " + counts(100, " last_resort=true")},
			{"alice FetchKeyPackage identity_key=bob", "Ok packages=[{device_key=bob/1 cipher_suite=1 key_package=kp:bob/1:n0 package_id=p1}]"},
			{upload("kp:bob/1:more", "kp:bob/1:toomuch"), full},
			{upload("kp:bob/1:more"), "Ok stored=1 " + counts(100, " last_resort=true")},
			{upload("kp:bob/1:again"), full},
		} {
			size := w.log.Size()
			got := w.step(step.line, nil)
			if got[0] != step.want {
				t.Errorf("%.60s…: %s\nnot %s", step.line, got[0], step.want)
			}
			if w.log.Size() != size && step.want == full {
				t.Errorf("%.60s…: a refusal left %d records", step.line, w.log.Size()-size)
			}
		}
	})
}

// TestExpiredKeyPackagesAreBounded: those whose lifetime is over stay for up to an hour,
// and no more of them than twice what a device may have: a fetch looks at each.
func TestExpiredKeyPackagesAreBounded(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.people("bob", w.arguments(nil))
		upload := func(round int) string {
			var packages []string
			for i := range 100 {
				packages = append(packages, fmt.Sprintf("kp:bob/1:n%d-%d:for=2s", round, i))
			}
			return w.step("bob UploadKeyPackage key_packages="+strings.Join(packages, ","), nil)[0]
		}
		for round, want := range []string{"Ok stored=100", "Ok stored=100", "RateLimited KEY_PACKAGES_FULL limit=100 retry_after=1h0m0s"} {
			if got := upload(round); !strings.HasPrefix(got, want) {
				t.Errorf("round %d: %.120s, not %s", round, got, want)
			}
			w.step("advance 5s", nil)
		}
		w.step("advance 1h", nil)
		if got := upload(3); !strings.HasPrefix(got, "Ok stored=100") {
			t.Errorf("an hour later: %.120s", got)
		}
	})
}
