// Package webtest opens the agent's web page in a headless Chromium, over a lab
// with real traffic: see make test-web.
package webtest
