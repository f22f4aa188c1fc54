// Command sum is a reduce program: it adds up the values of each key, which are whole numbers.
package main

import "github.com/crowdcompute/crowd/sdk"

func main() { sdk.Reduce(sdk.Sum) }
