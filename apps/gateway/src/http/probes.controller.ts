/** `/health/live`, `/health/ready`, `/metrics`. */
import { Controller, Get, Res } from '@nestjs/common';
import { healthResponse, metricsResponse, type ProbeResponse } from '@posthorn/service';
import type { FastifyReply } from 'fastify';
import { GatewayCore } from '../core.js';

@Controller()
export class ProbesController {
  constructor(private readonly core: GatewayCore) {}

  @Get('health/live')
  live(@Res() reply: FastifyReply): void {
    send(reply, healthResponse(this.core.service.health, '/health/live')!);
  }

  @Get('health/ready')
  ready(@Res() reply: FastifyReply): void {
    send(reply, healthResponse(this.core.service.health, '/health/ready')!);
  }

  @Get('metrics')
  async metrics(@Res() reply: FastifyReply): Promise<void> {
    send(reply, await metricsResponse(this.core.service.metrics));
  }
}

function send(reply: FastifyReply, { status, contentType, body }: ProbeResponse): void {
  void reply.code(status).header('content-type', contentType).header('cache-control', 'no-store').send(body);
}
