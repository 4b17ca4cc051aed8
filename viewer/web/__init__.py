"""The browser as a web page: textual-serve, kept to one computer and to one origin."""
