"""Between the socket and Gradio: who gets in, what may come in, how much at once, what goes out. Knows no tab."""
