// Compares dashboards with the types that Grafana publishes (@grafana/schema): each is made a TypeScript constant of the
// type of dashboards, each panel one of the type of its plugin's options, and the compiler judges. A key that Grafana does
// not know, a missing one, and a word outside of an enumeration are errors.
//
//     node schema.mjs FILE...     prints the errors; exits with 1 if there are any
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const home = dirname(fileURLToPath(import.meta.url));
const composable = join(home, 'node_modules/@grafana/schema/dist/types/raw/composable');
const plugins = ['heatmap', 'stat', 'timeseries'];

const imports = `
import type { Dashboard, FieldConfigSource, Panel, RowPanel } from '@grafana/schema';
${plugins.map((plugin) => `import type * as ${plugin} from '${composable}/${plugin}/panelcfg/x/types.gen';`).join('\n')}
// A value of a type as JSON has it: the words of an enumeration instead of its members.
type Json<T> = T extends string ? \`\${T}\` : T extends number | boolean | null | undefined ? T
  : T extends (infer U)[] ? Json<U>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
type Of<Options, Field> = Json<Omit<Panel, 'options' | 'fieldConfig'>
  & { options: Options; fieldConfig: Omit<FieldConfigSource, 'defaults'>
    & { defaults: Omit<FieldConfigSource['defaults'], 'custom'> & { custom?: Field } } }>;
`;

const types = {
  row: 'Json<RowPanel>',
  heatmap: 'Of<heatmap.Options, heatmap.FieldConfig>',
  stat: 'Of<stat.Options, never>',
  timeseries: 'Of<timeseries.Options, timeseries.FieldConfig>',
};

function constants({ panels, ...dashboard }) {
  const all = [`const dashboard: Json<Omit<Dashboard, 'panels'>> = ${JSON.stringify(dashboard)};`];
  for (const panel of panels) {
    const type = types[panel.type];
    if (!type) throw new Error(`no type for panels of the plugin ${panel.type}: add it to schema.mjs`);
    all.push(`const panel${panel.id}: ${type} = ${JSON.stringify(panel)};`);
  }
  return all.join('\n');
}

const options = { noEmit: true, strict: true, skipLibCheck: true, target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler, types: [], lib: ['lib.esnext.d.ts', 'lib.dom.d.ts'] };

// One program with a source for each dashboard, which exist in memory only.
function faults(files) {
  const sources = new Map(files.map((file, at) => [join(home, `dashboard-${at}.generated.ts`), file]));
  const texts = new Map([...sources].map(([source, file]) => [source, imports + constants(JSON.parse(readFileSync(file, 'utf8')))]));
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = (name) => texts.has(name) || fileExists(name);
  host.readFile = (name) => texts.get(name) ?? readFile(name);
  host.getSourceFile = (name, ...rest) =>
    texts.has(name) ? ts.createSourceFile(name, texts.get(name), options.target) : getSourceFile(name, ...rest);
  const program = ts.createProgram([...texts.keys()], options, host);
  return ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
    const line = texts.get(file?.fileName)?.slice(0, start).split('\n').at(-1) ?? '';
    const constant = /^const (\w+)/.exec(line)?.[1] ?? '';
    return `${sources.get(file?.fileName) ?? file?.fileName}: ${constant}: ${ts.flattenDiagnosticMessageText(messageText, '\n  ')}`;
  });
}

const files = process.argv.slice(2);
if (files.length === 0) throw new Error('name the files');
const found = faults(files);
for (const fault of found) console.log(fault);
process.exitCode = found.length === 0 ? 0 : 1;
