"""The test suites of servers and frameworks, run plain and with the middleware around every app."""
