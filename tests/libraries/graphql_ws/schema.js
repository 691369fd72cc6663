// An echo in GraphQL.
import { buildSchema } from 'graphql';

import { report } from '../../express/report.js';

export const schema = buildSchema('type Query { echo(text: String!): String! }');

export const rootValue = {
  echo({ text }) {
    report('message', { data: text });
    return text;
  },
};

export const query = 'query ($text: String!) { echo(text: $text) }';
