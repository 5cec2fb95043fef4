for i = 1, 80 do listen { port = 8000 + i } end
