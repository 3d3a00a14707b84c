// The TypeScript SDKs 1.x and 2.x, over Streamable HTTP and over HTTP+SSE.
import { main, text } from './play.mjs';

const second = await import('@modelcontextprotocol/client').catch(() => null);
const first = '@modelcontextprotocol/sdk/client';
const { Client } = second ?? (await import(`${first}/index.js`));
const { StreamableHTTPClientTransport } = second ?? (await import(`${first}/streamableHttp.js`));
const { SSEClientTransport } = second ?? (await import(`${first}/sse.js`));

await main(async (request) => {
  const init = { requestInit: { headers: request.headers } };
  if (request.transport === 'sse') {
    init.eventSourceInit = { fetch: (url, given) => fetch(url, { ...given, headers: { ...given.headers, Accept: 'text/event-stream', ...request.headers } }) };
  }
  const Transport = request.transport === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
  const options = second && request.transport !== 'sse' ? { versionNegotiation: { mode: 'auto' } } : {};
  const client = new Client({ name: 'walker', version: '1.0.0' }, options);
  await client.connect(new Transport(new URL(request.url), init));
  return {
    list: async () => (await client.listTools()).tools.map((tool) => tool.name),
    call: async (name, given) => {
      const progress = [];
      const options = { onprogress: (p) => progress.push(p.progress) };
      const result = second
        ? await client.callTool({ name, arguments: given }, options)
        : await client.callTool({ name, arguments: given }, undefined, options);
      return text(result) + (progress.length ? ` ${JSON.stringify(progress)}` : '');
    },
    close: () => client.close(),
  };
});
