package usage

import (
	"runtime"
	"testing"
)

func TestPeakCountsWhatIsHeldMeanwhile(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("this system does not tell")
	}
	const mib = 64
	none := Peak(func() {})
	some := Peak(func() {
		b := make([]byte, mib<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		runtime.KeepAlive(b)
	})
	if none == 0 || some == 0 {
		t.Skip("/proc is not there or may not be written")
	}
	if some-none < mib/2 {
		t.Errorf("a peak of %.0f MiB with nothing, %.0f with %d MiB held", none, some, mib)
	}
}

func TestCPUTimePasses(t *testing.T) {
	at := CPU()
	for range 1 << 30 {
		if CPU() > at {
			return
		}
	}
	t.Errorf("still %g s", at)
}
