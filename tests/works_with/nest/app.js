// A NestJS app on Express, with a gateway behind the WsAdapter. Decorators are called as functions, because plain Node
// has no syntax for them.
import 'reflect-metadata';

import { Controller, Get, Module, Req } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WsAdapter } from '@nestjs/platform-ws';
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';

import { report, without } from '../serve.js';

class Gateway {
  handleConnection() {
    report('open', {});
  }

  handleDisconnect() {
    report('close', {});
  }

  echo(data) {
    report('message', { data });
    return { event: 'echo', data };
  }
}

class Plain {
  seen({ secure, protocol }) {
    report('seen', { secure, protocol });
    return { secure, protocol };
  }
}

class AppModule {}

const method = (type, name, ...decorators) => {
  const { prototype } = type;
  for (const decorate of decorators) decorate(prototype, name, Object.getOwnPropertyDescriptor(prototype, name));
};
WebSocketGateway({ path: '/echo' })(Gateway);
MessageBody()(Gateway.prototype, 'echo', 0);
method(Gateway, 'echo', SubscribeMessage('echo'));
Controller()(Plain);
Req()(Plain.prototype, 'seen', 0);
method(Plain, 'seen', Get('/seen'));
Module({ controllers: [Plain], providers: [Gateway] })(AppModule);

const app = await NestFactory.create(AppModule, { logger: ['error', 'warn'] });
app.useWebSocketAdapter(new WsAdapter(app));
if (!without('trust proxy')) app.set('trust proxy', 'loopback');
await app.listen(0, '127.0.0.1');
console.log(`listening ${app.getHttpServer().address().port}`);
