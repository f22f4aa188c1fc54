// A Rust program: arguments, files and a panic.
use std::{env, fs, io::Read};

fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    println!("{} {:?}", text.len(), env::args().collect::<Vec<_>>());
    fs::write("/out/rust.txt", text.to_uppercase()).unwrap();
    let mut names: Vec<_> = fs::read_dir("/in").unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    println!("{:?}", names);
    std::process::exit(4);
}
