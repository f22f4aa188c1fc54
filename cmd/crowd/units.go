package main

import (
	"fmt"
	"math/big"
	"strings"

	"github.com/crowdcompute/crowd"
)

var (
	gasUnits  = []unit{{"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3}, {"K", 1e3}}
	sizeUnits = []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}
)

type unit struct {
	name string
	size int64
}

// parseUnits reads a whole or decimal number with an optional unit, exactly.
func parseUnits(what, s string, units []unit) (uint64, error) {
	number, factor := s, int64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, factor = strings.TrimSpace(n), u.size
			break
		}
	}
	v, err := parseDecimal(number, factor)
	if err != nil {
		var names []string
		for _, u := range units {
			names = append(names, u.name)
		}
		return 0, fmt.Errorf("%s %q: %w; units: %s", what, s, err, strings.Join(names, ", "))
	}
	return v, nil
}

// parseDecimal is s·factor, which must be a whole number that fits. Big rationals
// keep it exact; exponents and fractions, which could be huge, are no numbers here.
func parseDecimal(s string, factor int64) (uint64, error) {
	if len(s) > 32 || s == "" || strings.Trim(s, "0123456789.") != "" {
		return 0, fmt.Errorf("want a number")
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return 0, fmt.Errorf("want a number")
	}
	r.Mul(r, new(big.Rat).SetInt64(factor))
	if !r.IsInt() || !r.Num().IsUint64() {
		return 0, fmt.Errorf("too many digits")
	}
	return r.Num().Uint64(), nil
}

func parseCredits(s string) (crowd.Credits, error) {
	v, err := parseDecimal(s, int64(crowd.Credit))
	if err != nil {
		return 0, fmt.Errorf("credits %q: %w, with at most six decimals", s, err)
	}
	return crowd.Credits(v), nil
}

// parsePrice reads credits per giga-gas.
func parsePrice(s string) (crowd.Price, error) {
	v, err := parseDecimal(s, int64(crowd.ReferencePrice))
	if err != nil {
		return 0, fmt.Errorf("price %q: %w of credits per giga-gas, with at most three decimals", s, err)
	}
	return crowd.Price(v), nil
}
