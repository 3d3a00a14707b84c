// An MCP upstream as plain as can be, on Node's own parser: notes what it executes, and answers it.
import { createServer } from 'node:http';

const seen = [];
const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : null);

createServer((request, response) => {
  const answer = (status, value) => {
    const body = value === null ? '' : JSON.stringify(value);
    response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
    response.end(body);
  };
  if (request.method === 'GET') return answer(200, seen);
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const message = JSON.parse(Buffer.concat(pieces).toString('utf8'));
    const params = own(message, 'params') ?? {};
    const trace = request.headers.traceparent.split('-')[1];
    seen.push([trace, own(message, 'method'), ...['name', 'uri', 'arguments', 'ref'].map((name) => own(params, name))]);
    if (!Object.hasOwn(message, 'id')) return answer(202, null);
    const result = { content: [], messages: [], contents: [], completion: { values: [] } };
    return answer(200, { jsonrpc: '2.0', id: message.id, result });
  });
}).listen(Number(process.argv[2]), '127.0.0.1');
