package train

import (
	"flag"
	"os"
	"testing"
)

// TestMain runs properties, each of which trains networks, on few cases in short mode.
func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		if err := flag.Set("rapid.checks", "5"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
