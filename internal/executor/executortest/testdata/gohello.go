// The smallest Go program, for the time that it takes to start one.
package main

func main() { println("hello") }
