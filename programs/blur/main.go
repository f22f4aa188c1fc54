// Command blur smooths a picture and keeps its edges: PNG or JPEG on stdin, PNG
// on stdout, progress on stderr. It knows nothing of the network that runs it;
// compiled natively or to wasip1, it writes the same bytes.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/draw"
	_ "image/jpeg" // stdin may be a JPEG
	"image/png"
	"io"
	"os"
)

// Bounds on a picture from outside.
const (
	maxPixels = 64 << 20  // with a frame of maxRadius on each side
	maxBytes  = 256 << 20 // of the file
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run returns the exit code: 0 done, 1 bad picture or failed write, 2 misused.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("blur", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: blur [--radius N] [--edge N] [--passes N] < picture.png > blurred.png")
		flags.PrintDefaults()
	}
	radius := flags.Int("radius", 8, fmt.Sprintf("half the window's width in pixels, 0 to %d; 0 changes nothing", maxRadius))
	edge := flags.Int("edge", 30, fmt.Sprintf("difference in levels that counts as an edge, 1 to %d", maxEdge))
	passes := flags.Int("passes", 4, "how often to filter, 1 to 16; more looks more like a painting")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2 // flags has said why
	}
	var errs []error
	within := func(name string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("blur: --%s %d: want %d to %d", name, v, low, high))
		}
	}
	within("radius", *radius, 0, maxRadius)
	within("edge", *edge, 1, maxEdge)
	within("passes", *passes, 1, 16)
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("blur: unexpected %q: the picture comes on stdin", flags.Arg(0)))
	}
	if len(errs) > 0 {
		fmt.Fprintln(stderr, errors.Join(errs...))
		return 2
	}

	pic, err := decode(stdin)
	if err != nil {
		fmt.Fprintln(stderr, "blur:", err)
		return 1
	}
	f := newFilter(*radius, *edge)
	done, all := 0, *passes*pic.h
	for range *passes {
		pic = f.apply(pic, func() {
			done++
			if done*20/all > (done-1)*20/all {
				fmt.Fprintf(stderr, "row %d/%d\n", done, all)
			}
		})
	}
	if err := encode(stdout, pic); err != nil {
		fmt.Fprintln(stderr, "blur: write picture:", err)
		return 1
	}
	return 0
}

// decode reads a PNG or JPEG. It looks at the size that the header claims before
// it makes room for it.
func decode(r io.Reader) (picture, error) {
	r = io.LimitReader(r, maxBytes)
	var head bytes.Buffer
	c, _, err := image.DecodeConfig(io.TeeReader(r, &head))
	if err != nil {
		return picture{}, fmt.Errorf("stdin is no PNG or JPEG picture: %w", err)
	}
	const frame = 2 * maxRadius
	if c.Width < 1 || c.Height < 1 || c.Width > maxPixels/(c.Height+frame)-frame {
		return picture{}, fmt.Errorf("a picture of %d x %d pixels: want at least 1 x 1, and at most %d with %d more each way",
			c.Width, c.Height, maxPixels, frame)
	}
	img, _, err := image.Decode(io.MultiReader(&head, r))
	if err != nil {
		return picture{}, fmt.Errorf("decode picture: %w", err)
	}
	from := img.Bounds()
	pic := picture{from.Dx(), from.Dy(), make([]uint64, 0, from.Dx()*from.Dy())}
	row := image.NewRGBA(image.Rect(0, 0, pic.w, 1))
	for y := range pic.h {
		draw.Draw(row, row.Rect, img, from.Min.Add(image.Pt(0, y)), draw.Src)
		for p := row.Pix; len(p) > 0; p = p[4:] {
			pic.px = append(pic.px, uint64(p[0])|uint64(p[1])<<16|uint64(p[2])<<32|uint64(p[3])<<48)
		}
	}
	return pic, nil
}

// encode writes p as a PNG.
func encode(w io.Writer, p picture) error {
	img := image.NewRGBA(image.Rect(0, 0, p.w, p.h))
	for i, q := range p.px {
		copy(img.Pix[4*i:], []byte{byte(q), byte(q >> 16), byte(q >> 32), byte(q >> 48)})
	}
	return png.Encode(w, img)
}
