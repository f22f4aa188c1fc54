package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/crowdcompute/crowd"
)

// result prints v as JSON when the user asked for it, and for people otherwise.
func (a *app) result(v any, human func(io.Writer)) error {
	if !a.json {
		human(a.stdout)
		return nil
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints rows under a heading, aligned; the first row is the heading.
func table(w io.Writer, indent string, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if cell = clean(cell); cell == "" && i < len(row)-1 {
				row[i] = "-"
			} else {
				row[i] = cell
			}
		}
		fmt.Fprintln(tw, indent+strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	tw.Flush()
}

// fields prints names and values, leaving out empty ones.
func fields(w io.Writer, pairs ...string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(tw, "%s\t%s\n", pairs[i], clean(pairs[i+1]))
		}
	}
	tw.Flush()
}

// clean makes text from elsewhere harmless on a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}

// textOnly writes to a terminal until there comes what is no text: a zero byte.
type textOnly struct {
	w       io.Writer
	skipped func() // called once
	over    bool
}

func (t *textOnly) Write(p []byte) (int, error) {
	if !t.over && bytes.IndexByte(p, 0) < 0 {
		return t.w.Write(p)
	}
	if !t.over {
		t.over = true
		t.skipped()
	}
	return len(p), nil
}

// count is so many of something, "1 shard" or "2 shards".
func count[N int | uint32 | uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// creditText is an amount with as many decimals as it needs, "3.2 credits".
func creditText(c crowd.Credits) string {
	unit := " credits"
	if c == crowd.Credit {
		unit = " credit"
	}
	return trimZeros(c.String()) + unit
}

// changeText is a signed amount, "+1.5" or "-50".
func changeText(micro int64) string {
	sign, abs := "+", uint64(micro)
	if micro < 0 {
		sign, abs = "-", -uint64(micro)
	}
	return sign + trimZeros(crowd.Credits(abs).String())
}

func trimZeros(s string) string {
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// priceText is a price in credits per giga-gas.
func priceText(p crowd.Price) string {
	return trimZeros(fmt.Sprintf("%d.%03d", p/1000, p%1000))
}

func gasText(g crowd.Gas) string {
	for _, u := range []struct {
		name string
		size float64
	}{{"Tgas", 1e12}, {"Ggas", 1e9}, {"Mgas", 1e6}, {"kgas", 1e3}} {
		if float64(g) >= u.size {
			return threeDigits(float64(g)/u.size) + " " + u.name
		}
	}
	return fmt.Sprintf("%d gas", g)
}

func sizeText(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return threeDigits(float64(n)/float64(u.size)) + " " + u.name
		}
	}
	return fmt.Sprintf("%d B", n)
}

// threeDigits shows v with about three significant digits.
func threeDigits(v float64) string {
	decimals := 2
	if v >= 100 {
		decimals = 0
	} else if v >= 10 {
		decimals = 1
	}
	return trimZeros(strconv.FormatFloat(v, 'f', decimals, 64))
}

// elapsedText is a duration since a job was posted: always as wide as it gets
// within minutes, so that lines stay aligned.
func elapsedText(d time.Duration) string {
	if d >= time.Hour {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%.2fs", d.Seconds())
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// chanceText is a probability in words that people can weigh.
func chanceText(p float64) string {
	if p <= 0 {
		return "0"
	}
	return fmt.Sprintf("%.2g (1 in %.0f)", p, math.Round(1/p))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
