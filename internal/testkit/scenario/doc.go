// Package scenario has no code, only tests: what quaywall is for, played through with the built program, a real Docker
// engine and real packets, on each backend. S1, S2 … are the scenarios of the mission, Trap01, Trap02 … what broke others.
//
// Be aware: every test makes a lab of its own and runs beside others, so a machine under load makes them slow, not red:
// only silence is judged by the clock.
package scenario
