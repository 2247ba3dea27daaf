"""Phone calls over Twilio: webhooks, TwiML, media streams."""
