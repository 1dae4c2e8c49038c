module devloop.dev/toolbox

go 1.25.0
