package commands_test

import (
	"os"
	"strconv"
	"testing"
)

// runs is a count by environment variable, or by the scale of the run.
func runs(t *testing.T, variable string, scales map[string]int) int {
	t.Helper()
	if text := os.Getenv(variable); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q is no number of runs", variable, text)
		}
		return n
	}
	if n, known := scales[os.Getenv("QPC_TEST_SCALE")]; known {
		return n
	}
	return scales[""]
}
