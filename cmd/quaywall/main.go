// Command quaywall is the firewall of Linux hosts that run Docker.
package main

func main() {}
