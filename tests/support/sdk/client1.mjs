// Plays steps with the TypeScript SDK 1.x: a request on standard input, one JSON line on standard output. An address below
// /sse is spoken to by the older transport.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const request = JSON.parse(readFileSync(0, 'utf8'));
const told = (error) => ({ code: error?.code ?? error?.status ?? null, message: String(error?.message ?? error), data: error?.data ?? null });

const play = async (client, step) => {
  switch (step.do) {
    case 'list_tools': return client.listTools(step.cursor ? { cursor: step.cursor } : undefined);
    case 'call': {
      const progress = [];
      const options = step.progress ? { onprogress: (p) => progress.push(p.progress) } : {};
      if (step.timeout) options.timeout = step.timeout * 1000;
      const result = await client.callTool({ name: step.name, arguments: step.arguments }, undefined, options);
      return step.progress ? { ...result, progress } : result;
    }
    case 'list_prompts': return client.listPrompts();
    case 'prompt': return client.getPrompt({ name: step.name, arguments: step.arguments });
    case 'list_resources': return client.listResources();
    case 'read': return client.readResource({ uri: step.uri });
    case 'ping': return client.ping();
    case 'wait':
      writeFileSync(`${step.file}.reached`, '');
      while (!existsSync(step.file)) await new Promise((done) => setTimeout(done, 50));
      return {};
    case 'sleep': return new Promise((done) => setTimeout(() => done({}), step.seconds * 1000));
  }
};

const outcome = { steps: [] };
const client = new Client({ name: 'typescript-1', version: '1.0.0' }, { capabilities: {} });
try {
  const Transport = request.url.includes('/sse/') ? SSEClientTransport : StreamableHTTPClientTransport;
  const transport = new Transport(new URL(request.url), { requestInit: { headers: request.headers } });
  await client.connect(transport);
  outcome.version = transport.protocolVersion ?? null;
  for (const step of request.steps) {
    try {
      outcome.steps.push({ ok: (await play(client, step)) ?? {} });
    } catch (error) {
      outcome.steps.push({ error: told(error) });
    }
  }
  await client.close();
} catch (error) {
  outcome.failed = told(error);
}
console.log(JSON.stringify(outcome));
process.exit(0);
