"""Export: an adapter, a merged model, a GGUF or an Ollama folder, each proved to answer as its reference does."""
