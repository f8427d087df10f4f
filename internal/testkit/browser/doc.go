// Package browser holds what is made for a browser against a real one: the page of audit and the drawing of explain, in
// Chromium, driven over the WebDriver protocol (https://www.w3.org/TR/webdriver2).
//
//	make browser
//
// Be aware: its tests have the build tag browser and stand apart from the others, since a browser is much to install. They run
// in a network namespace of their own, where nothing but the driver's socket on loopback can be reached.
package browser
