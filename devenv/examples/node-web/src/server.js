'use strict';

const fs = require('node:fs/promises');
const http = require('node:http');
const path = require('node:path');

const { greeting } = require('./greeting');

const folder = path.join(__dirname, '../public');
const types = { '.css': 'text/css', '.html': 'text/html', '.txt': 'text/plain' };

async function answer(request, response) {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (pathname === '/version') {
    response.end(`${greeting}\n`);
    return;
  }
  // A URL never leads out of its root; what is left of `..` is gone by now.
  const file = path.join(folder, decodeURIComponent(pathname).replace(/\/$/, '/index.html'));
  try {
    const content = await fs.readFile(file);
    response.setHeader('Content-Type', types[path.extname(file)] ?? 'application/octet-stream');
    response.end(content);
  } catch (error) {
    response.statusCode = error.code === 'ENOENT' || error.code === 'EISDIR' ? 404 : 500;
    response.end(`${error.code}\n`);
  }
}

const server = http.createServer(answer).listen(8080);
// As process 1 it gets no default action for signals.
process.on('SIGTERM', () => server.close(() => process.exit(0)));
