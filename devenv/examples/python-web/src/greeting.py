GREETING = "hello from python-web"
