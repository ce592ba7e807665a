package glyphs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// A change of any of these numbers is a change of the data that networks have
// been trained on.
var golden100 = map[Task]string{
	Letters:   "352879b84ef3c0e9",
	Lowercase: "a85b53570c7957e7",
	Digits:    "ea70533de99ef402",
	Shapes:    "27cf802546c49a82",
	Textures:  "0f2c044cfe2369e8",
	Inverted:  "5691b35c58baace0",
	Segments:  "21637704a274c339",
}

func TestImagesAreThoseThatNetworksWereTrainedOn(t *testing.T) {
	for _, task := range Tasks() {
		h := sha256.New()
		g := New(task, 0, "train")
		for i := range 100 {
			h.Write(g.Image(i))
			h.Write(g.Mask(i))
		}
		if got := hex.EncodeToString(h.Sum(nil))[:16]; got != golden100[task] {
			t.Errorf("%s: %q, want %q", task, got, golden100[task])
		}
	}
}

func TestSinesDoNotDependOnTheLastBit(t *testing.T) {
	for i := range turn {
		v := (1 << 14) * math.Sin(2*math.Pi*float64(i)/turn)
		if gap := math.Abs(v - math.Floor(v) - 0.5); gap < 1e-6 {
			t.Errorf("entry %d is %.9f before rounding", i, v)
		}
	}
	if sin(0) != 0 || sin(turn/4) != 1<<14 || cos(turn/2) != -1<<14 || sin(-turn/4) != -1<<14 {
		t.Error("wrong quarter turns")
	}
}

func TestImagesDoNotDependOnOrderOrGoroutines(t *testing.T) {
	for _, task := range Tasks() {
		g := New(task, 5, "test")
		const n = 40
		var images [n][]uint8
		var wg sync.WaitGroup
		for k := range 4 {
			wg.Go(func() {
				for i := n - 1 - k; i >= 0; i -= 4 {
					images[i] = g.Image(i)
				}
			})
		}
		wg.Wait()
		again := New(task, 5, "test")
		for i := range n {
			if !slices.Equal(images[i], again.Image(i)) {
				t.Errorf("%s: image %d differs", task, i)
			}
		}
	}
}

func TestNoImageIsFlatOrComesTwice(t *testing.T) {
	for _, task := range Tasks() {
		seen := make(map[[32]byte]string)
		for seed := range uint64(2) {
			for _, stream := range []string{"train", "test"} {
				g := New(task, seed, stream)
				for i := range 150 {
					p := g.Image(i)
					if len(p) != Size*Size*3 {
						t.Fatalf("%s: %d samples", task, len(p))
					}
					name := fmt.Sprintf("image %d of %s %s, seed %d", i, task, stream, seed)
					h := sha256.Sum256(p)
					if other, ok := seen[h]; ok {
						t.Errorf("%s is %s", name, other)
					}
					seen[h] = name
					spread := uint8(0)
					for c := range 3 {
						lo, hi := p[c], p[c]
						for j := c; j < len(p); j += 3 {
							lo, hi = min(lo, p[j]), max(hi, p[j])
						}
						spread = max(spread, hi-lo)
					}
					if spread < 16 {
						t.Errorf("%s has %d levels between darkest and lightest", name, spread)
					}
				}
			}
		}
	}
}

func TestClassesTakeTurns(t *testing.T) {
	for _, task := range Tasks() {
		names := task.ClassNames()
		g := New(task, 0, "train")
		count := make([]int, len(names))
		for i := range 10 * len(names) {
			count[g.Label(i)]++
		}
		if task == Segments {
			if count[0] != 0 {
				t.Errorf("%d images labelled background", count[0])
			}
			count = count[1:]
		}
		if slices.Max(count)-slices.Min(count) > 1 {
			t.Errorf("%s: %v", task, count)
		}
	}
	if Task("x").ClassNames() != nil {
		t.Error("a task that is none has classes")
	}
}

func TestMasksMarkWhatLiesInFront(t *testing.T) {
	g := New(Segments, 0, "train")
	var count [4]int
	for i := range 300 {
		m := g.Mask(i)
		front := 0
		for _, kind := range m {
			count[kind]++
			if int(kind) == g.Label(i) {
				front++
			}
		}
		if front < 4 {
			t.Errorf("image %d: %d pixels of kind %d, which lies in front", i, front, g.Label(i))
		}
	}
	for kind, n := range count {
		if n < 300*Size*Size/30 {
			t.Errorf("%d pixels of kind %d", n, kind)
		}
	}
	if slices.Max(New(Letters, 0, "train").Mask(0)) != 0 {
		t.Error("a letter has a mask")
	}
}

func TestCoverageIsTheAreaOfAPolygon(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := func(name string) int32 { return rapid.Int32Range(0, side).Draw(t, name) }
		var tri [3]point
		for i := range tri {
			tri[i] = point{at("x"), at("y")}
		}
		a, b, c := tri[0], tri[1], tri[2]
		want := math.Abs(float64((b.x-a.x)*(c.y-a.y)-(c.x-a.x)*(b.y-a.y))) / 2 / one
		sum := 0.0
		for _, v := range rasterize(path{tri[:]}) {
			if v < 0 || v > one {
				t.Fatalf("coverage %d", v)
			}
			sum += float64(v)
		}
		// Lines lie an eighth of a pixel apart, and the sides are that uneven
		// along at most their lengths; each pixel is rounded down.
		if slack := float64(6*side/rows + Size*Size); math.Abs(sum-want) > slack {
			t.Fatalf("%v: area %.0f, want %.0f within %.0f", tri, sum, want, slack)
		}
	})
}

func TestRasterizeTakesWhatLiesOutside(t *testing.T) {
	const far = 100 * side
	all := rasterize(path{{{-far, -far}, {far, -far}, {far, far}, {-far, far}}})
	for i, v := range all {
		if v != one {
			t.Fatalf("pixel %d is covered by %d", i, v)
		}
	}
	for _, off := range []point{{-side, 0}, {side, 0}, {0, -side}, {0, side}} {
		q := path{{{0, 0}, {side, 0}, {side, side}, {0, side}}}
		q.move(off.x, off.y)
		for i, v := range rasterize(q) {
			if v != 0 {
				t.Fatalf("%v: pixel %d is covered by %d", off, i, v)
			}
		}
	}
}

func TestAStrokeHasItsWidthInEveryDirection(t *testing.T) {
	for angle := 0; angle < turn; angle += 37 {
		r := int32(10 * one)
		dx, dy := r*cos(angle)>>14, r*sin(angle)>>14
		mid := int32(side / 2)
		line := stroke(path{{{mid - dx, mid - dy}, {mid + dx, mid + dy}}}, 3*one, false)
		sum := 0
		for _, v := range rasterize(line) {
			sum += int(v)
		}
		// 20 pixels of length 3 wide, and about half a disc at each end.
		if area := float64(sum) / one; area < 60 || area > 70 {
			t.Errorf("at %d/%d of a turn a line of 20×3 pixels covers %.1f", angle, turn, area)
		}
	}
}

func BenchmarkImage(b *testing.B) {
	for _, task := range Tasks() {
		b.Run(string(task), func(b *testing.B) {
			g := New(task, 0, "train")
			for i := 0; b.Loop(); i++ {
				g.Image(i)
			}
		})
	}
}
