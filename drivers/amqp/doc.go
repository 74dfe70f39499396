// Package amqp is a driver on RabbitMQ, 3.10 or newer: a broker, for any backend.
package amqp
