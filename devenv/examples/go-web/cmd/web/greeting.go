package main

const greeting = "hello from go-web"
